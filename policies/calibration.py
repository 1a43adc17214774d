"""From what a drafter knows of its token to how likely it is accepted, as `AcceptPredictor`s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from policies.arms import Bools, Floats, Ints
from policies.robust import rising

_EDGES = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995])
_PRIOR_WEIGHT = 8.0  # observations that "the probability is right" counts for


class Stated:
    """Takes evidence that is a probability of acceptance at its word: an acceptance head's."""

    def accept_probabilities(self, evidence: Floats) -> Floats:
        return evidence


class TopProbability:
    """Counts of accepted tokens by bin of top probability, shrunk to its own mean, made to rise.

    An `AcceptPredictor`. State is additive integers.
    """

    def __init__(self) -> None:
        size = len(_EDGES) + 1
        self.num_tested: NDArray[np.int64] = np.zeros(size, np.int64)
        self.num_accepted: NDArray[np.int64] = np.zeros(size, np.int64)
        ends = np.r_[0.0, _EDGES, 1.0]
        self._centres: Floats = (ends[:-1] + ends[1:]) / 2

    @staticmethod
    def of(num_tested: Sequence[int], num_accepted: Sequence[int]) -> TopProbability:
        """With counts that were gathered before; raises ValueError if they are none."""
        made = TopProbability()
        tested, accepted = np.array(num_tested), np.array(num_accepted)
        size = made.num_tested.shape
        if tested.shape != size or accepted.shape != size or (accepted > tested).any():
            raise ValueError(f"a calibration has {size[0]} counts of tested and accepted tokens")
        made.merge(tested, accepted)
        return made

    def accept_probabilities(self, evidence: Floats) -> Floats:
        """Of top probabilities of any shape; linear between the bins' centres."""
        weights = self.num_tested + _PRIOR_WEIGHT
        rates = (self.num_accepted + _PRIOR_WEIGHT * self._centres) / weights
        return np.asarray(
            np.interp(evidence, self._centres, rising(rates, np.asarray(weights, np.float64)))
        )

    def observe(self, top_probabilities: Floats, accepted: Bools) -> None:
        """Draft tokens that were tested: all accepted ones, and the first that was not."""
        bins = np.searchsorted(_EDGES, top_probabilities, side="right")
        size = len(_EDGES) + 1
        self.merge(np.bincount(bins, minlength=size), np.bincount(bins[accepted], minlength=size))

    def merge(self, num_tested: Ints, num_accepted: Ints) -> None:
        """Adds counts that others have gathered."""
        self.num_tested += num_tested
        self.num_accepted += num_accepted
