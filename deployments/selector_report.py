"""What `/v1/selector` tells of one target: who chooses, from which tables, and how well it did.

Bounded: of the tables by tenant those with the most counts. Runs on the engine's thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.settings import TargetSettings
from deployments.selectors import DEFAULT
from engine.counters import DrafterHindsight, EngineCounters
from policies.arms import Arms, Floats
from policies.learning import LearningSelector
from policies.selector import Selector
from policies.survival import SurvivalSelector

MAX_TABLES = 8
"""Of one selector."""

NONE = "none"
Json = dict[str, Any]


def report_selectors(
    settings: TargetSettings, built: Mapping[str, Selector], counters: EngineCounters
) -> Json:
    """`shares` are of the rounds so far, `regret` is in tokens, of the rounds that were compared.

    The default selector's name is null.
    """
    sections = {DEFAULT: settings.selector, **settings.selectors}
    return {
        "speculation": settings.speculation,
        "selectors": [
            {"name": name or None, "settings": sections[name].model_dump(mode="json")}
            | _learnt(selector)
            for name, selector in built.items()
        ],
        "shares": _shares(counters),
        "regret": [_regret(name, each) for name, each in sorted(counters.hindsight.items())],
    }


def _learnt(selector: Selector) -> Json:
    """Of those that learn: their arms, and what they know by tenant; "" stands for all tenants."""
    if isinstance(selector, SurvivalSelector):
        tables = selector.table.counts
        shown = [_survival_table(selector, key, tables[key]) for key in _busiest(tables)]
    elif isinstance(selector, LearningSelector):
        tables = {} if selector.scope == "request" else selector.sums
        shown = [_sums(selector, key, tables[key]) for key in _busiest(tables)]
    else:
        return {}
    return {
        "version": selector.version,
        "arms": _arms(selector.arms),
        "num_tables": len(tables),
        "tables": shown,
    }


def _busiest(tables: Mapping[str, Floats]) -> list[str]:
    """By the first of their counts: drafts at risk, or choices made."""
    return sorted(tables, key=lambda key: -float(tables[key][0].sum()))[:MAX_TABLES]


def _arms(arms: Arms) -> list[Json]:
    return [
        {"drafter": drafter or NONE, "draft_length": draft_length}
        for drafter, draft_length in arms.keys
    ]


def _survival_table(selector: SurvivalSelector, key: str, counts: Floats) -> Json:
    """A row for each drafter and context that was seen; counts by depth, from the first token."""
    at_risk, passed = counts
    rows = [
        {
            "drafter": selector.arms.names[drafter] or NONE,
            "context": selector.features.least(cell),
            "num_at_risk": _seen(at_risk[drafter, cell]),
            "num_passed": _seen(passed[drafter, cell]),
        }
        for drafter, cell in np.argwhere(at_risk[:, :, 0] > 0).tolist()
    ]
    return {"tenant": key, "rows": rows}


def _seen(counts: Floats) -> list[float]:
    """As far as there are any."""
    num = int(np.count_nonzero(counts))
    return [round(count, 3) for count in counts[:num].tolist()]


def _sums(selector: LearningSelector, key: str, sums: Floats) -> Json:
    """A row for each arm, in their order."""
    names = selector.sum_names
    rows = [dict(zip(names, map(float, row), strict=True)) for row in sums.T.tolist()]
    return {"tenant": key, "rows": rows}


def _shares(counters: EngineCounters) -> dict[str, float]:
    rounds = {name: use.num_rounds for name, use in sorted(counters.per_drafter.items())}
    num_rounds = max(counters.num_rounds, 1)
    rounds[NONE] = max(0, counters.num_rounds - sum(rounds.values()))
    return {name: round(num / num_rounds, 4) for name, num in rounds.items()}


def _regret(drafter: str, hindsight: DrafterHindsight) -> Json:
    """`num_tokens`: had this one always been chosen there, so many more were accepted."""
    num_more = hindsight.num_accepted - hindsight.num_accepted_of_chosen
    num_rounds = hindsight.num_compared
    return {
        "drafter": drafter,
        "num_rounds": num_rounds,
        "num_tokens": num_more,
        "tokens_per_round": round(num_more / num_rounds, 4) if num_rounds else 0.0,
    }
