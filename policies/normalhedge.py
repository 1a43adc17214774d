"""NormalHedge (Chaudhuri, Freund and Hsu, arXiv 0903.2851), as HedgeSpec (2510.20064) uses it."""

from __future__ import annotations

import numpy as np

from policies.arms import Bools, Floats, Ints
from policies.learning import Plays

_NUM_STEPS = 12  # of Newton's method; it ends within rounding after about 8


class NormalHedge:
    """Weights from regrets R, without any rate to tune, from every drafter's loss.

    R grows by <weights, losses> - loss, with the weights of the choice. With c such that
    mean(exp([R]+^2 / 2c)) = e, weights are [R]+/c exp([R]+^2 / 2c); uniform while no R is positive.
    """

    sums = ("chosen", "observed", "regret")
    sees_all = True
    joins_at_mean = True

    def probabilities(self, sums: Floats, allowed: Bools, turns: Ints) -> Floats:
        regrets = np.where(allowed, np.maximum(sums[:, 2], 0.0), 0.0)
        largest = regrets.max(axis=1, keepdims=True)
        squares = (regrets / np.where(largest > 0, largest, 1.0)) ** 2
        exponents = np.where(allowed, _scale(squares, allowed) * squares, -np.inf)
        weights = np.sqrt(squares) * np.exp(exponents - exponents.max(axis=1, keepdims=True))
        weights = np.where(largest > 0, weights, allowed)
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def increments(self, plays: Plays) -> Floats:
        mixture = (plays.probabilities * plays.losses).sum(axis=1, keepdims=True)
        nothing = np.zeros_like(plays.losses)
        return np.stack([nothing, nothing + 1, mixture - plays.losses], axis=1)


def _scale(squares: Floats, allowed: Bools) -> Floats:
    """The u with mean(exp(u squares)) = e over the allowed, where the largest square is 1.

    The logarithm of that mean is convex in u and at least 1 at u = 1 + ln N, so Newton's steps
    from there come down to u and do not pass it.
    """
    num_allowed = allowed.sum(axis=1, keepdims=True)
    scale = 1 + np.log(num_allowed)
    for _ in range(_NUM_STEPS):
        powers = np.where(allowed, np.exp(scale * (squares - 1)), 0.0)
        total = powers.sum(axis=1, keepdims=True)
        excess = scale + np.log(total / num_allowed) - 1
        slope = (powers * squares).sum(axis=1, keepdims=True) / total
        scale = scale - excess / np.where(slope > 0, slope, 1.0)
    return np.asarray(scale)
