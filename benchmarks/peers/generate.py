"""transformers' `generate`, which the project depends on anyway: plain, and its prompt lookup."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from benchmarks.peers.system import FLOAT32, PLAIN, Running, System, working

LOOKUP = "lookup"


def _start(modes: Sequence[str]) -> AbstractContextManager[Running]:
    return working("benchmarks.peers.generate_worker")


def _measures(mode: str, cell: str) -> bool:
    """Batches are padded and wait for each other, lookup has none, and nothing may come later."""
    return cell == "1" or (mode == PLAIN and cell != "open")


SYSTEM = System(
    name="transformers",
    precision=FLOAT32,
    about="transformers' generate; several streams are one padded batch after the other",
    starts=((PLAIN, LOOKUP),),
    start=_start,
    measures=_measures,
)
