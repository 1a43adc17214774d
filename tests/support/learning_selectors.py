"""Learners by name over three arms, and the feedback that teaches them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from policies.arms import Arms
from policies.exp3spec import Exp3Spec
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Loss, Rule
from policies.normalhedge import NormalHedge
from policies.prices import FixedPrices
from policies.rows import Scope
from policies.selector import Context, Decision, Outcome
from policies.ucbspec import UcbSpec

ARMS = Arms({"suffix": (2, 4), "model": (3,)})
PRICES = FixedPrices(np.ones((3, 5)) + np.arange(5), np.ones(3))
RULES: Mapping[str, Callable[[], Rule]] = {
    "ucbspec": UcbSpec,
    "exp3spec": Exp3Spec,
    "hedge": Hedge,
    "normalhedge": NormalHedge,
}
every_rule = pytest.mark.parametrize("name", RULES)


def make(
    name: str, scope: Scope = "global", loss: Loss = "tokens", arms: Arms = ARMS, **settings: int
) -> LearningSelector:
    generator = np.random.default_rng(0)
    settings_ = Learning(loss, scope, **settings)
    return LearningSelector(arms, RULES[name](), PRICES, generator, settings_)


def context(sequence: str = "a", tenant: str = "t", **draft_lengths: int) -> Context:
    return Context(sequence, tenant, draft_lengths, {})


def outcomes(decision: Decision, context: Context, accepted: Mapping[str, int]) -> list[Outcome]:
    """The chosen draft's, and those of the evaluated drafters to their full length."""
    chosen = decision.drafter
    own = min(accepted.get(chosen or "", 0), decision.draft_length)
    found = [Outcome.of(decision, own)]
    for name in decision.evaluated:
        offered = context.draft_lengths[name]
        found.append(
            Outcome(
                decision.id, decision.table_version, name, offered, min(accepted[name], offered)
            )
        )
    return found


def learn(selector: LearningSelector, num_rounds: int, accepted: Mapping[str, int]) -> None:
    offer = context(suffix=4, model=4)
    for _ in range(num_rounds):
        (decision,) = selector.choose([offer])
        selector.observe(outcomes(decision, offer, accepted))


def cells(selector: LearningSelector) -> dict[tuple[str, str, int, str], int]:
    """Sums in millionths, by (tenant or "", drafter, draft length, sum); NormalHedge's regret as
    loss."""
    return {
        (key, drafter, length, name): round(sums[s, a] * 1e6)
        for key, sums in selector.sums.items()
        for s, name in enumerate(("chosen", "observed", "loss"))
        for a, (drafter, length) in enumerate(selector.arms.keys)
    }
