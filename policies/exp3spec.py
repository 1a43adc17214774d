"""EXP3Spec (BanditSpec, arXiv 2505.15141, section 5): exponential weights on estimated losses."""

from __future__ import annotations

import numpy as np

from policies.arms import Bools, Floats, Ints
from policies.hedge import soft_min
from policies.learning import Plays


class Exp3Spec:
    """Weights are exp(-rate_t times the whole sum of losses), rate_t = sqrt(ln K / (t K)).

    A chosen arm's loss is divided by the probability it was chosen with, which makes every sum an
    unbiased estimate; t counts rounds that were observed.
    """

    sums = ("chosen", "observed", "loss")
    sees_all = False
    joins_at_mean = True

    def probabilities(self, sums: Floats, allowed: Bools, turns: Ints) -> Floats:
        num_arms = sums.shape[2]
        num_rounds = np.maximum(sums[:, 1].sum(axis=1, keepdims=True), 1.0)
        rate = np.sqrt(np.log(num_arms) / (num_rounds * num_arms))
        return soft_min(rate * sums[:, 2], allowed)

    def increments(self, plays: Plays) -> Floats:
        at = np.arange(len(plays.chosen))
        increments = np.zeros((len(at), 3, plays.losses.shape[1]))
        increments[at, 1, plays.chosen] = 1
        loss = plays.losses[at, plays.chosen] / plays.probabilities[at, plays.chosen]
        increments[at, 2, plays.chosen] = loss
        return increments
