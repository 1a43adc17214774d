"""`/v1/drafters`: how each drafter is, and what came of its drafts, over all target replicas."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.target_counters import TargetCounters
from engine.request import DrafterUse


def list_drafters(targets: Sequence[TargetCounters]) -> list[dict[str, object]]:
    """`states` has one for each replica that answered."""
    engines = [target.engine for target in targets]
    names = sorted({name for engine in engines for name in engine.drafter_states})
    found: list[dict[str, object]] = []
    for name in names:
        uses = [engine.per_drafter.get(name, DrafterUse()) for engine in engines]
        found.append(
            {
                "id": name,
                "object": "drafter",
                "states": [e.drafter_states[name] for e in engines if name in e.drafter_states],
                "num_failures": sum(e.num_drafter_failures.get(name, 0) for e in engines),
                "num_drafts": sum(use.num_rounds for use in uses),
                "num_draft_tokens": sum(use.num_draft_tokens for use in uses),
                "num_accepted_tokens": sum(use.num_accepted_tokens for use in uses),
            }
        )
    return found
