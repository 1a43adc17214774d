"""What a target that has just started says of its selectors."""

from __future__ import annotations

from typing import Any

from cluster.settings import TargetSettings
from deployments.selector_report import report_selectors
from deployments.selectors import Selectors
from engine.counters import EngineCounters
from policies.cost_model import CostModel


def first_report() -> dict[str, Any]:
    selectors, settings = Selectors({"lookup": 4}, CostModel()), TargetSettings()
    selectors.build(settings)
    return report_selectors(settings, selectors.built, EngineCounters())
