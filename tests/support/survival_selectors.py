"""Survival selectors over two drafters, at prices of a test's own, and what teaches them."""

from __future__ import annotations

import numpy as np

from policies.arms import Arms
from policies.prices import FixedPrices
from policies.selector import Context, Outcome
from policies.survival import Survival, SurvivalSelector

ARMS = Arms({"lookup": (1, 2, 4, 8), "model": (1, 2, 4)})


def prices(per_token: float, evaluation: float = 1.0) -> FixedPrices:
    """Plain decoding takes one second."""
    table = np.tile(1 + per_token * np.arange(9), (3, 1))
    return FixedPrices(table, np.array([0.0, evaluation, evaluation]))


def make(
    per_token: float = 0.01, evaluation: float = 1.0, settings: Survival | None = None
) -> SurvivalSelector:
    generator = np.random.default_rng(0)
    return SurvivalSelector(ARMS, prices(per_token, evaluation), generator, settings)


def context(match: int = 0, streak: int = 0, sequence: str = "a", **lengths: int) -> Context:
    return Context(sequence, "t", lengths, {"lookup": match}, {"lookup": streak})


def learn(selector: SurvivalSelector, offer: Context, accepted: int, num_rounds: int = 200) -> None:
    """Every draft, chosen or evaluated, has `accepted` tokens accepted, or all it has."""
    for _ in range(num_rounds):
        (decision,) = selector.choose([offer])
        own = min(accepted, decision.draft_length)
        found = [Outcome.of(decision, own if decision.drafter else 0)]
        for name in decision.evaluated:
            longest = offer.draft_lengths[name]
            outcome = (decision.id, decision.table_version, name, longest, min(accepted, longest))
            found.append(Outcome(*outcome))
        selector.observe(found)
