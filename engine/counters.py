"""What the engine has done since it started, and how full it is now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.request import DrafterUse, SpeculationUse

DrafterState = Literal["ready", "disabled", "resting", "away"]
"""`resting` after failures, `away` if it is elsewhere and does not answer."""


@dataclass(frozen=True, slots=True)
class DrafterHindsight:
    """What was heard of a drafter that was not chosen.

    It was scored at `num_evaluations` positions in `seconds`; at `num_compared` of them the chosen
    arm's outcome is known too: this one would have had `num_accepted` tokens accepted where the
    chosen had `num_accepted_of_chosen`. `num_decisions_unheard`, a gauge, is how many decisions
    learners have made since they last heard of it.
    """

    num_evaluations: int = 0
    seconds: float = 0.0
    num_compared: int = 0
    num_accepted: int = 0
    num_accepted_of_chosen: int = 0
    num_decisions_unheard: int = 0


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """A snapshot. The first four are gauges, the others only grow.

    `num_prompt_tokens` includes those found in the prefix cache, `num_cached_tokens`.
    `num_drafter_failures` counts drafts that were refused, by drafter; `drafter_states` has them
    all, as they are now. `per_tenant` has a few tenants apart and the rest as one;
    `num_accepted_at` is by place in the draft.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_kv_blocks: int = 0
    num_kv_blocks_used: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_emitted_tokens: int = 0
    num_rounds: int = 0
    num_preemptions: int = 0
    num_requests_finished: int = 0
    per_drafter: Mapping[str, DrafterUse] = field(default_factory=dict)
    num_drafter_failures: Mapping[str, int] = field(default_factory=dict)
    drafter_states: Mapping[str, DrafterState] = field(default_factory=dict)
    per_tenant: Mapping[str, SpeculationUse] = field(default_factory=dict)
    num_accepted_at: tuple[int, ...] = ()
    hindsight: Mapping[str, DrafterHindsight] = field(default_factory=dict)
