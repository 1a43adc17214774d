"""Pictures of drafters, PNG files in the ignored folder `build/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from engine.drafters.folder import DrafterFolder
from engine.drafters.trained import acceptance_head
from training.acceptance import Tested
from training.curves import Curve

FOLDER = Path(__file__).parents[1] / "build"
_NUM_BINS = 10


def draw_matrix(file_name: str, title: str, matrix: Mapping[str, Mapping[str, float]]) -> None:
    """A field for each drafter (rows) and domain (columns)."""
    rows, columns = list(matrix), list(next(iter(matrix.values())))
    values = [[matrix[row][column] for column in columns] for row in rows]
    figure, panel = plt.subplots(figsize=(1.6 + 1.2 * len(columns), 1.4 + 0.45 * len(rows)))
    panel.imshow(values, cmap="Greens", aspect="auto", vmin=1.0)
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(rows)), rows)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            panel.text(x, y, f"{value:.2f}", ha="center", va="center")
    _save(figure, file_name, title)


def draw_curves(file_name: str, curves: Mapping[str, Sequence[Curve]]) -> None:
    """Right guesses on held-out texts by step of training; the deeper in a draft, the paler."""
    figure, panel = plt.subplots(figsize=(6, 4.5))
    for number, (name, found) in enumerate(curves.items()):
        for curve in found:
            panel.plot(
                curve.steps,
                curve.shares,
                color=f"C{number % 10}",
                alpha=1 / curve.depth,
                marker="o",
                markersize=3,
                label=name if curve.depth == 1 else None,
            )
    panel.set_xscale("log", base=2)
    panel.set(xlabel="steps", ylabel="likeliest id is the target's")
    panel.legend(fontsize=7)
    _save(figure, file_name, "on held-out texts, at each depth of a draft")


def draw_calibration(
    file_name: str, tested: Mapping[str, Tested], folders: Sequence[DrafterFolder]
) -> None:
    """How often tokens were accepted by what the acceptance head said; nothing without heads."""
    if not tested:
        return
    heads = {folder.path.name: acceptance_head(folder) for folder in folders}
    figure, panel = plt.subplots(figsize=(5, 4.5))
    for name, tokens in tested.items():
        head = heads[name]
        assert head is not None, "only drafters with a head are tested"
        with torch.no_grad():
            said = head(tokens.states.cpu(), tokens.log_probs.cpu()).sigmoid()
        bins = (said * _NUM_BINS).long().clamp(max=_NUM_BINS - 1)
        held = [bin_ for bin_ in range(_NUM_BINS) if (bins == bin_).any()]
        x = [float(said[bins == bin_].mean()) for bin_ in held]
        accepted = tokens.accepted.cpu().float()
        y = [float(accepted[bins == bin_].mean()) for bin_ in held]
        panel.plot(x, y, marker="o", markersize=3, label=name)
    panel.plot([0, 1], [0, 1], color="tab:gray", linewidth=0.8)
    panel.set(xlabel="acceptance head", ylabel="accepted")
    panel.legend(fontsize=7)
    _save(figure, file_name, "rejections weigh six times: the heads are wary")


def _save(figure: Figure, file_name: str, title: str) -> None:
    figure.suptitle(title)
    figure.tight_layout()
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / file_name, dpi=110)
    plt.close(figure)
    print(f"plot: {FOLDER / file_name}")
