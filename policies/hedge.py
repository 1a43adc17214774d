"""Hedge over all drafters' losses (HedgeSpec, arXiv 2510.20064, section 3), delayed as they are."""

from __future__ import annotations

import numpy as np

from policies.arms import Bools, Floats, Ints
from policies.learning import Plays


class Hedge:
    """Weights are exp(-rate times the sum of losses), a loss being 1 - emitted/(L+1).

    `rate` None is sqrt(8 ln K / t) at round t (Cesa-Bianchi and Lugosi, Prediction, learning and
    games, theorem 2.3), which needs no horizon: regret <= 2 sqrt(t ln(K)/2) + sqrt(ln(K)/8).
    """

    sums = ("chosen", "observed", "loss")
    sees_all = True
    joins_at_mean = True

    def __init__(self, rate: float | None = None) -> None:
        if rate is not None and rate <= 0:
            raise ValueError(f"rate: {rate} is not allowed; expected > 0")
        self._rate = rate

    def probabilities(self, sums: Floats, allowed: Bools, turns: Ints) -> Floats:
        num_rounds = np.maximum(sums[:, 1], 1.0)
        rate = self._rate or np.sqrt(8 * np.log(max(sums.shape[2], 2)) / num_rounds)
        return soft_min(rate * sums[:, 2], allowed)

    def increments(self, plays: Plays) -> Floats:
        nothing = np.zeros_like(plays.losses)
        return np.stack([nothing, nothing + 1, plays.losses], axis=1)


def soft_min(energies: Floats, allowed: Bools) -> Floats:
    """Probabilities proportional to exp(-energy) among the allowed, whatever the energies' size."""
    exponents = np.where(allowed, -energies, -np.inf)
    weights = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
