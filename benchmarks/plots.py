"""Pictures of what the benchmarks found, files in the ignored folder `build/` unless told else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

FOLDER = Path(__file__).parents[1] / "build"

Lines = Mapping[str, Sequence[float]]


def draw_bars(
    file_name: str,
    title: str,
    values: Mapping[str, Mapping[str, float]],
    folder: Path | None = None,
) -> None:
    """A panel for each key of `values`, with a bar for each of its names."""
    height = max(4.5, 1 + 0.25 * max(map(len, values.values())))
    figure, panels = plt.subplots(1, len(values), figsize=(4 * len(values), height), squeeze=False)
    for panel, (load, by_name) in zip(panels[0], values.items(), strict=True):
        colours = ["tab:green" if name.endswith("survival") else "tab:gray" for name in by_name]
        panel.barh(list(by_name), list(by_name.values()), color=colours)
        panel.invert_yaxis()
        panel.set_title(load)
        panel.locator_params(axis="x", nbins=4)
    _save(figure, (folder or FOLDER) / file_name, title)


def draw_lines(
    file_name: str,
    title: str,
    panels: Mapping[str, Lines],
    x: Sequence[float],
    labels: tuple[str, str],
    log: bool = False,
) -> None:
    """A panel for each key of `panels`, with a line for each of its names over `x`."""
    figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 4.5), squeeze=False)
    for panel, (name, lines) in zip(axes[0], panels.items(), strict=True):
        for label, values in lines.items():
            panel.plot(x, values, marker="o", markersize=3, label=label)
        if log:
            panel.set(xscale="log", yscale="log")
        panel.set(title=name, xlabel=labels[0], ylabel=labels[1])
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, FOLDER / file_name, title)


def _save(figure: Figure, path: Path, title: str) -> None:
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"plot: {path}")
