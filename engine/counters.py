"""What the engine has done since it started, and how full it is now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.request import DrafterUse

DrafterState = Literal["ready", "disabled", "resting", "away"]
"""`resting` after failures, `away` if it is elsewhere and does not answer."""


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """A snapshot. The first four are gauges, the others only grow.

    `num_prompt_tokens` includes those found in the prefix cache, `num_cached_tokens`.
    `num_drafter_failures` counts drafts that were refused, by drafter; `drafter_states` has them
    all, as they are now.
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
