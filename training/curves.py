"""`python -m training.curves [FOLDER ...]`: how drafters got better by step, and still get.

Reads the logs that `training.drafter` keeps in its work folders, all of `build/training` by
default: the share of a held-out text's tokens where the drafter's likeliest id is the target's, at
its first step and at further ones on its own states. Draws `build/learning_curves.png` and prints
what the last doubling of the steps brought, which is about what the next one would.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from training.trainer import LOG

WORK = Path("build/training")
_SHARE = re.compile(r"held_out_right_(\d+)")


class CurveError(Exception):
    """A folder without the log of a drafter; names it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Of one depth of a draft: `shares` of right guesses after so many `steps`, ascending."""

    depth: int
    steps: tuple[int, ...]
    shares: tuple[float, ...]

    @property
    def last_doubling(self) -> float | None:
        """What the share rose by since half of the steps; None if that was before the log."""
        middle = self.steps[-1] / 2
        if middle < self.steps[0]:
            return None
        return self.shares[-1] - float(np.interp(middle, self.steps, self.shares))


def read_curves(folder: Path) -> list[Curve]:
    """By depth, from 1 on; raises CurveError."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.strip()]
        by_step: dict[int, Mapping[str, float]] = {int(line["step"]): line for line in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CurveError(f"{folder}: no log of a training: {error}") from error
    names = {name for line in by_step.values() for name in line}
    depths = sorted(int(share[1]) for name in names if (share := _SHARE.fullmatch(name)))
    if not depths:
        raise CurveError(f"{folder}: its log is not of a drafter")
    return [_curve(depth, by_step) for depth in depths]


def _curve(depth: int, by_step: Mapping[int, Mapping[str, float]]) -> Curve:
    name = f"held_out_right_{depth}"
    steps = tuple(step for step in sorted(by_step) if name in by_step[step])
    return Curve(depth, steps, tuple(by_step[step][name] for step in steps))


def print_curves(curves: Mapping[str, Sequence[Curve]]) -> None:
    width = max(len(name) for name in curves)
    print(f"{'':{width}}  depth   steps  right  last doubling of the steps")
    for name, found in curves.items():
        for curve in found:
            rise = curve.last_doubling
            told = "unknown" if rise is None else f"{rise:+.3f}"
            print(f"{name:{width}}  {curve.depth:5}  {curve.steps[-1]:6}  "
                  f"{curve.shares[-1]:.3f}  {told}")  # fmt: skip


def all_curves(folders: Sequence[Path]) -> dict[str, list[Curve]]:
    """Of these trainings, or of all drafters below `WORK`."""
    if folders:
        return {folder.name: read_curves(folder) for folder in folders}
    found = {}
    for log in sorted(WORK.glob(f"*/{LOG}")):
        if "held_out_right_" in log.read_text(encoding="utf-8"):  # not an acceptance head's
            found[log.parent.name] = read_curves(log.parent)
    if not found:
        raise CurveError(f"{WORK}: no drafter was trained there")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", type=Path, nargs="*", help="work folders of training.drafter")
    given = parser.parse_args(arguments)
    if find_spec("matplotlib") is None:
        print("matplotlib is not installed: pip install 'hedgerow[dev]'", file=sys.stderr)
        return 1
    from training.plots import draw_curves

    try:
        curves = all_curves(given.folders)
    except CurveError as error:
        print(error, file=sys.stderr)
        return 1
    print_curves(curves)
    draw_curves("learning_curves.png", curves)
    return 0


if __name__ == "__main__":
    sys.exit(main())
