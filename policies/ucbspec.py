"""UCBSpec (BanditSpec, arXiv 2505.15141, section 4): optimism about the tokens a round emits."""

from __future__ import annotations

import numpy as np

from policies.arms import Bools, Floats, Ints
from policies.learning import Plays


class UcbSpec:
    """First every arm once, then argmax of mean emitted + radius, from the chosen arm's outcome.

    With Y in [1, L+1], n of t rounds observed of an arm, K arms and delta = 1/2, the radius is
    (L/2) sqrt((1+n)/n^2 (1 + 2 ln(K t^2 sqrt(1+n)/delta))); here in units of L, as losses are.
    `radius_scale` 1 is the paper's.
    """

    sums = ("chosen", "observed", "loss")
    sees_all = False
    joins_at_mean = False

    def __init__(self, radius_scale: float = 1.0) -> None:
        if radius_scale < 0:
            raise ValueError(f"radius_scale: {radius_scale} is not allowed; expected >= 0")
        self._radius_scale = radius_scale

    def probabilities(self, sums: Floats, allowed: Bools, turns: Ints) -> Floats:
        num_observed = sums[:, 1]
        fresh = allowed & (num_observed == 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            index = self._radius(num_observed) - sums[:, 2] / num_observed
        best = np.where(allowed, index, -np.inf).argmax(axis=1)
        queue = np.where(fresh, sums[:, 0], np.inf).argsort(axis=1, kind="stable")
        num_fresh = fresh.sum(axis=1)
        turn = turns % np.maximum(num_fresh, 1)
        first = queue[np.arange(len(sums)), turn]
        return one_hot(np.where(num_fresh > 0, first, best), sums.shape[2])

    def _radius(self, num_observed: Floats) -> Floats:
        n = num_observed
        num_rounds = np.maximum(n.sum(axis=1, keepdims=True), 1.0)
        log_term = 2 * np.log(2 * n.shape[1] * num_rounds**2 * np.sqrt(1 + n))
        radius: Floats = 0.5 * np.sqrt((1 + n) / n**2 * (1 + log_term))
        return self._radius_scale * radius

    def increments(self, plays: Plays) -> Floats:
        at = np.arange(len(plays.chosen))
        increments = np.zeros((len(at), 3, plays.losses.shape[1]))
        increments[at, 1, plays.chosen] = 1
        increments[at, 2, plays.chosen] = plays.losses[at, plays.chosen]
        return increments


def one_hot(chosen: Ints, num_arms: int) -> Floats:
    """Certainty about one arm per row."""
    weights = np.zeros((len(chosen), num_arms))
    weights[np.arange(len(chosen)), chosen] = 1.0
    return weights
