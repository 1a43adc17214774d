"""Bandits to compare with: BanditSpec's released code, MetaSD-UCB and Thompson sampling."""

from __future__ import annotations

import numpy as np

from policies.arms import Bools, Floats, Ints
from policies.learning import Plays
from policies.ucbspec import UcbSpec, one_hot


class ReleasedUcbSpec(UcbSpec):
    """As BanditSpec's released code does: the bonus divides by the count of all rounds.

    It is then the same for every arm, so that after one round of each the choice is greedy.
    """

    def _radius(self, num_observed: Floats) -> Floats:
        num_rounds = np.maximum(num_observed.sum(axis=1, keepdims=True), 1.0)
        return np.broadcast_to(super()._radius(num_rounds), num_observed.shape)


class MetaSdUcb(UcbSpec):
    """MetaSD-UCB (arXiv 2604.05417): mean reward + strength x sqrt(2 ln t / n)."""

    def __init__(self, strength: float = 0.1) -> None:
        super().__init__()
        self._strength = strength

    def _radius(self, num_observed: Floats) -> Floats:
        num_rounds = np.maximum(num_observed.sum(axis=1, keepdims=True), 1.0)
        radius: Floats = self._strength * np.sqrt(2 * np.log(num_rounds) / num_observed)
        return radius


class Thompson:
    """Gaussian Thompson sampling (Agrawal and Goyal, AISTATS 2013): losses with variance 1/4."""

    sums = ("chosen", "observed", "loss")
    sees_all = False
    joins_at_mean = False

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def probabilities(self, sums: Floats, allowed: Bools, turns: Ints) -> Floats:
        num_observed = sums[:, 1]
        means = sums[:, 2] / (num_observed + 1)
        draws = means + 0.5 * self._generator.standard_normal(means.shape) / np.sqrt(
            num_observed + 1
        )
        return one_hot(np.where(allowed, draws, np.inf).argmin(axis=1), sums.shape[2])

    def increments(self, plays: Plays) -> Floats:
        return UcbSpec().increments(plays)
