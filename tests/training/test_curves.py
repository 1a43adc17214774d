"""Learning curves come from the logs that trainings keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training import curves, plots
from training.curves import Curve, read_curves
from training.trainer import LOG


def log_of(folder: Path, lines: list[dict[str, float]]) -> Path:
    folder.mkdir(parents=True)
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def head_log(folder: Path) -> Path:
    shares = {100: 0.1, 200: 0.3, 300: 0.4, 400: 0.45}
    return log_of(
        folder,
        [
            {"step": step, "loss": 1.0, "held_out_right_1": share, "held_out_right_2": share / 2}
            for step, share in shares.items()
        ],
    )


def test_a_curve_says_what_the_last_doubling_brought(tmp_path: Path) -> None:
    first, second = read_curves(head_log(tmp_path / "sql-head"))
    assert first == Curve(1, (100, 200, 300, 400), (0.1, 0.3, 0.4, 0.45))
    assert first.last_doubling == pytest.approx(0.15)
    assert second.last_doubling == pytest.approx(0.075)
    assert Curve(1, (300, 400), (0.4, 0.45)).last_doubling is None


def test_all_drafters_that_were_trained_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head_log(tmp_path / "work" / "sql-head")
    log_of(tmp_path / "work" / "sql-head-acceptance", [{"step": 1, "held_out_right": 0.5}])
    monkeypatch.setattr(curves, "WORK", tmp_path / "work")
    monkeypatch.setattr(plots, "FOLDER", tmp_path / "plots")
    assert curves.main([]) == 0
    assert "sql-head      1     400  0.450  +0.150" in capsys.readouterr().out
    assert (tmp_path / "plots" / "learning_curves.png").stat().st_size > 1000


def test_what_has_no_curve_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = log_of(tmp_path / "acceptance", [{"step": 1, "held_out_right": 0.5}])
    for folder in (other, tmp_path / "nothing"):
        assert curves.main([str(folder)]) == 1
        assert str(folder) in capsys.readouterr().err
