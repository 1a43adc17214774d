"""Builds the selectors that a target's settings describe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from cluster.config import FixedSelectorSection, RuleSelectorSection, SelectorSection
from cluster.config import TargetSettings as Settings
from policies.fixed import FixedSelector
from policies.rule import RuleSelector
from policies.selector import Decision, Selector


def build_selector(section: SelectorSection) -> Selector:
    match section:
        case FixedSelectorSection():
            return FixedSelector(drafter=section.drafter, draft_length=section.draft_length)
        case RuleSelectorSection():
            otherwise = Decision(section.otherwise.drafter, section.otherwise.draft_length)
            return RuleSelector(
                lookups=section.lookups, draft_length=section.draft_length, otherwise=otherwise
            )
        case _:
            assert_never(section)


def build_selectors(settings: Settings) -> tuple[Selector, Mapping[str, Selector]]:
    """The default and the named ones; with speculation off all of them decode plainly."""
    if settings.speculation == "off":
        plain = FixedSelector(drafter=None, draft_length=0)
        return plain, dict.fromkeys(settings.selectors, plain)
    named = {name: build_selector(section) for name, section in settings.selectors.items()}
    return build_selector(settings.selector), named
