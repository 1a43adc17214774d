"""The results as pictures: tokens per second by streams, one bar for each system and mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.results import Results, key_of
from benchmarks.peers.system import System
from benchmarks.plots import draw_bars

PICTURES = {
    "peers-mixed.svg": ("1", "8", "32"),
    "peers-domains.svg": ("8/code", "8/math", "8/chat", "8/edit"),
}


def draw(results: Results, systems: Sequence[System], folder: Path) -> list[str]:
    """Writes the pictures that there is something for; gives their file names."""
    drawn = []
    for file_name, cells in PICTURES.items():
        panels = {cell: bars(results, systems, cell) for cell in cells}
        there = {f"{cell} streams": found for cell, found in panels.items() if found}
        if there:
            draw_bars(file_name, "tokens/s", there, folder)
            drawn.append(file_name)
    return drawn


def bars(results: Results, systems: Sequence[System], cell: str) -> dict[str, float]:
    """Of our many fixed arms only the best."""
    found = {}
    for system in systems:
        keys = {mode: key_of(system.name, mode, cell) for mode in system.modes}
        named = {mode: key for mode, key in keys.items() if key in results.rounds}
        fixed = [mode for mode in named if " " in mode]  # a drafter and its length
        best = results.fastest(named[mode] for mode in fixed)
        for mode, key in named.items():
            if mode not in fixed or key == best:
                found[f"{system.name} {mode}"] = results.spread(key).median
    return found
