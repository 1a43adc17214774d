"""How each drafter is, and what came of its drafts, over all target replicas."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.target_counters import TargetCounters
from engine.request import DrafterUse


def list_drafters(targets: Sequence[TargetCounters]) -> list[dict[str, object]]:
    names = sorted({name for target in targets for name in target.drafter_states})
    return [describe_drafter(name, targets) for name in names]


def describe_drafter(name: str, targets: Sequence[TargetCounters]) -> dict[str, object]:
    """`states` has one for each replica that answered, `reasons` why it could not be loaded."""
    engines = [target.engine for target in targets]
    uses = [engine.per_drafter.get(name, DrafterUse()) for engine in engines]
    return {
        "id": name,
        "object": "drafter",
        "states": [target.drafter_states.get(name, "loading") for target in targets],
        "reasons": _reasons(name, targets),
        "num_failures": sum(engine.num_drafter_failures.get(name, 0) for engine in engines),
        "num_drafts": sum(use.num_rounds for use in uses),
        "num_draft_tokens": sum(use.num_draft_tokens for use in uses),
        "num_accepted_tokens": sum(use.num_accepted_tokens for use in uses),
    }


def _reasons(name: str, targets: Sequence[TargetCounters]) -> list[str]:
    """Each once."""
    notes = [target.drafters[name] for target in targets if name in target.drafters]
    return list(dict.fromkeys(note.reason for note in notes if note.reason is not None))
