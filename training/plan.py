"""What decides a drafter, beside the texts that it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.drafters.folder import FolderKind
from engine.drafters.shape import DrafterShape
from training.trainer import Schedule


@dataclass(frozen=True, slots=True)
class Objective:
    """What a step minimises: cross entropy with the target over `num_steps` unrolled steps, each
    weighing `step_decay` times the one before, and the distance to the target's states."""

    num_steps: int = 3
    step_decay: float = 0.8
    state_weight: float = 0.2
    batch_size: int = 4
    window: int = 320


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides a drafter, beside its corpora."""

    kind: FolderKind
    domain: str
    shape: DrafterShape
    num_ids: int
    schedule: Schedule
    objective: Objective = Objective()
    start: Path | None = None
    """A drafter of the same shape to go on from."""
    seed: int = 0
