"""Builds the selectors that a target's settings describe, and keeps those that stay the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from cluster.settings import (
    BanditSection,
    Exp3SpecSection,
    FixedSelectorSection,
    HedgeSection,
    LearnerSection,
    NormalHedgeSection,
    RuleSelectorSection,
    SelectorSection,
    SurvivalSection,
    TargetSettings,
    UcbSpecSection,
)
from cluster.statistics.arrays import learner_layout, survival_layout
from cluster.statistics.keys import fingerprint
from cluster.statistics.learning import SharedLearner
from policies.arms import USUAL_LENGTHS, Arms, draft_lengths_up_to
from policies.cost_model import ArmPrices, CostModel
from policies.exp3spec import Exp3Spec
from policies.features import CONFIDENCE_EDGES, Features
from policies.fixed import FixedSelector
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Rule
from policies.normalhedge import NormalHedge
from policies.rule import RuleSelector
from policies.selector import Decision, Selector
from policies.survival import Survival, SurvivalSelector
from policies.ucbspec import UcbSpec

DEFAULT = ""  # stands for the selector of requests that name none


class Selectors:
    """The selectors of one target.

    `longest` has each drafter's longest draft, `costs` what steps and drafts take here.
    """

    def __init__(self, longest: Mapping[str, int], costs: CostModel) -> None:
        self._longest = longest
        self._costs = costs
        self._built: dict[str, tuple[SelectorSection, Selector]] = {}

    def build(self, settings: TargetSettings) -> tuple[Selector | None, Mapping[str, Selector]]:
        """The default and the named ones; no default where speculation is off.

        A selector whose section is as before is the same object, with what it has learnt.
        """
        sections: dict[str, SelectorSection] = {DEFAULT: settings.selector, **settings.selectors}
        self._built = {name: self._kept(name, section) for name, section in sections.items()}
        named = {name: selector for name, (_, selector) in self._built.items() if name != DEFAULT}
        return self._built[DEFAULT][1] if settings.speculation == "on" else None, named

    def use_drafters(self, longest: Mapping[str, int]) -> None:
        """These from now on, for those that were built, too: what was learnt of others stays."""
        self._longest = longest
        for section, selector in self._built.values():
            if isinstance(selector, SurvivalSelector | LearningSelector):
                assert isinstance(section, LearnerSection)
                arms = self._arms(section)
                if arms.keys != selector.arms.keys:
                    selector.use_arms(arms, ArmPrices(self._costs, arms))

    @property
    def built(self) -> Mapping[str, Selector]:
        """Those of the present by their names; DEFAULT is that of requests that name none."""
        return {name: selector for name, (_, selector) in self._built.items()}

    @property
    def shared(self) -> list[SharedLearner]:
        """Those of the present whose sums mean the same elsewhere.

        Seconds do not: they are this machine's.
        """
        found = (_shared(section, selector) for section, selector in self._built.values())
        return [learner for learner in found if learner is not None]

    def _kept(self, name: str, section: SelectorSection) -> tuple[SelectorSection, Selector]:
        before = self._built.get(name)
        if before is not None and before[0] == section:
            return before
        return section, self._make(section)

    def _make(self, section: SelectorSection) -> Selector:
        match section:
            case FixedSelectorSection():
                return FixedSelector(section.drafter, section.draft_length)
            case RuleSelectorSection():
                otherwise = Decision(section.otherwise.drafter, section.otherwise.draft_length)
                return RuleSelector(section.lookups, section.draft_length, otherwise)
            case SurvivalSection():
                arms = self._arms(section)
                settings = Survival(
                    section.scope, _features(section), evaluation_share=section.evaluation_share
                )
                prices = ArmPrices(self._costs, arms)
                return SurvivalSelector(arms, prices, np.random.default_rng(), settings)
            case UcbSpecSection():
                return self._learning(section, UcbSpec(section.radius_scale))
            case Exp3SpecSection():
                return self._learning(section, Exp3Spec())
            case HedgeSection():
                return self._learning(section, Hedge(section.rate))
            case NormalHedgeSection():
                return self._learning(section, NormalHedge())
            case _:
                assert_never(section)

    def _learning(self, section: BanditSection, rule: Rule) -> Selector:
        arms = self._arms(section)
        learning = Learning(section.loss, section.scope)
        prices = ArmPrices(self._costs, arms)
        return LearningSelector(arms, rule, prices, np.random.default_rng(), learning)

    def _arms(self, section: LearnerSection) -> Arms:
        wanted = section.draft_lengths or USUAL_LENGTHS
        named = self._longest if section.drafters is None else section.drafters
        names = [name for name in named if name in self._longest]  # others were removed
        return Arms({name: draft_lengths_up_to(self._longest[name], wanted) for name in names})


def _features(section: SurvivalSection) -> Features:
    return Features(confidence_edges=CONFIDENCE_EDGES if section.confidence else ())


def _shared(section: SelectorSection, selector: Selector) -> SharedLearner | None:
    if isinstance(selector, SurvivalSelector) and isinstance(section, SurvivalSection):
        arms, num_contexts = selector.arms, _features(section).num_cells
        layout = survival_layout(arms.names, num_contexts, arms.max_length)
        return SharedLearner(selector, layout, leans_on_others=True)
    if not isinstance(selector, LearningSelector) or not isinstance(section, BanditSection):
        return None
    if section.loss == "seconds" or section.scope == "request":
        return None
    keys = selector.arms.keys
    learner = f"{section.name}-{fingerprint(section.scope, keys)[:8]}"
    layout = learner_layout(learner, selector.sum_names, keys)
    return SharedLearner(selector, layout, leans_on_others=False)
