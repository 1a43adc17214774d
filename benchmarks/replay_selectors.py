"""The learners and the ablations that the replay compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.replay_baselines import MetaSdUcb, ReleasedUcbSpec, Thompson
from benchmarks.replay_simulator import Setting
from policies.exp3spec import Exp3Spec
from policies.features import Features
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Loss, Rule
from policies.normalhedge import NormalHedge
from policies.rows import Scope
from policies.selector import Selector
from policies.survival import Survival, SurvivalSelector
from policies.ucbspec import UcbSpec

_NO_STREAK = Features(streak_edges=())
_NO_MATCH = Features(match_edges=())
_NOTHING = Features(match_edges=(), streak_edges=())
_FINER = Features(match_edges=(1, 4, 5, 8, 16), streak_edges=(1, 2, 4, 8, 16))
_ALL = Survival(evaluation_share=1e9, least_evaluation=1.0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """How to build a selector, and in which setting it runs."""

    build: Callable[[Setting, int], Selector]
    is_context_late: bool = False
    pays_evaluations: bool = True

    def setting(self, setting: Setting) -> Setting:
        return replace(
            setting, is_context_late=self.is_context_late, pays_evaluations=self.pays_evaluations
        )


def _paper(
    make_rule: Callable[[np.random.Generator], Rule],
    loss: Loss = "tokens",
    scope: Scope = "request",
) -> Candidate:
    """Scoring every drafter costs these nothing, as in their papers."""

    def build(setting: Setting, seed: int) -> Selector:
        generator = np.random.default_rng(seed)
        return LearningSelector(
            setting.arms, make_rule(generator), setting.prices, generator, Learning(loss, scope)
        )

    return Candidate(build, pays_evaluations=False)


def _survival(
    settings: Survival, is_context_late: bool = False, pays_evaluations: bool = True
) -> Candidate:
    def build(setting: Setting, seed: int) -> Selector:
        generator = np.random.default_rng(seed)
        return SurvivalSelector(setting.arms, setting.prices, generator, settings)

    return Candidate(build, is_context_late, pays_evaluations)


MAIN: Mapping[str, Candidate] = {
    "banditspec_released": _paper(lambda _: ReleasedUcbSpec()),
    "ucbspec": _paper(lambda _: UcbSpec()),
    "exp3spec": _paper(lambda _: Exp3Spec()),
    "hedge": _paper(lambda _: Hedge()),
    "normalhedge": _paper(lambda _: NormalHedge()),
    "survival": _survival(Survival()),
}
"""What the JSON reports, the papers' learners as the papers have them."""

LEARNERS: Mapping[str, Candidate] = {
    "ucbspec x0.05": _paper(lambda _: UcbSpec(0.05)),
    "metasd_ucb": _paper(lambda _: MetaSdUcb()),
    "thompson": _paper(Thompson),
    "banditspec_released, seconds": _paper(lambda _: ReleasedUcbSpec(), "seconds"),
    "ucbspec, seconds": _paper(lambda _: UcbSpec(), "seconds"),
    "ucbspec x0.05, seconds": _paper(lambda _: UcbSpec(0.05), "seconds"),
    "metasd_ucb, seconds": _paper(lambda _: MetaSdUcb(), "seconds"),
    "thompson, seconds": _paper(Thompson, "seconds"),
    "exp3spec, seconds": _paper(lambda _: Exp3Spec(), "seconds"),
    "hedge, seconds": _paper(lambda _: Hedge(), "seconds"),
    "normalhedge, seconds": _paper(lambda _: NormalHedge(), "seconds"),
    "ucbspec x0.05, seconds, global": _paper(lambda _: UcbSpec(0.05), "seconds", "global"),
    "hedge, seconds, global": _paper(lambda _: Hedge(), "seconds", "global"),
    "normalhedge, seconds, global": _paper(lambda _: NormalHedge(), "seconds", "global"),
    "normalhedge, seconds, tenant": _paper(lambda _: NormalHedge(), "seconds", "tenant"),
}

ABLATIONS: Mapping[str, Candidate] = {
    "survival, no context": _survival(Survival(features=_NOTHING)),
    "survival, match only": _survival(Survival(features=_NO_STREAK)),
    "survival, streaks only": _survival(Survival(features=_NO_MATCH)),
    "survival, finer cells": _survival(Survival(features=_FINER)),
    "survival, no request correction": _survival(Survival(correction_weight=None)),
    "survival, evaluation 0 %": _survival(Survival(evaluation_share=0.0)),
    "survival, evaluation 2 %": _survival(Survival(evaluation_share=0.02)),
    "survival, all evaluated": _survival(_ALL),
    "survival, all evaluated free": _survival(_ALL, pays_evaluations=False),
    "survival, context late": _survival(Survival(), is_context_late=True),
}
