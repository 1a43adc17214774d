"""The preStop hook: it asks Ray, waits for the node to be empty, and never longer than it may."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from deployments import drain


class FakeRay:
    """The command, and a node that is up for so many looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: int, num_looks: int) -> None:
        self.commands: list[list[str]] = []
        self._status = status
        self._looks: Iterator[bool] = iter([True] * num_looks)
        monkeypatch.setattr(subprocess, "run", self._run)
        monkeypatch.setattr(drain, "_is_up", lambda: next(self._looks, False))
        monkeypatch.setattr(drain, "_LOOK_EVERY_S", 0.0)

    def _run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        self.commands.append(command)
        return subprocess.CompletedProcess(command, self._status)


def test_it_returns_as_soon_as_the_node_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch, status=0, num_looks=3)
    assert drain.main(["90"]) == 0
    (command,) = ray.commands
    assert command[:2] == ["ray", "drain-node"]
    assert command[-2:] == ["--deadline-remaining-seconds", "90"]


def test_a_node_that_stays_full_is_waited_for_no_longer_than_it_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeRay(monkeypatch, status=0, num_looks=10**9)
    assert drain.main(["0"]) == 1


def test_a_cluster_that_does_not_answer_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(monkeypatch, status=1, num_looks=10**9)
    assert drain.main(["90"]) == 1


@pytest.mark.parametrize("arguments", [[], ["-1"], ["soon"], ["1", "2"]])
def test_anything_but_a_number_of_seconds_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert drain.main(arguments) == 2
    assert "usage" in capsys.readouterr().err


def test_ray_has_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It is hidden from Ray's help, and may go."""
    from ray.scripts.scripts import cli

    with pytest.raises(SystemExit) as ended:
        cli(["drain-node", "--help"])
    assert ended.value.code == 0
    assert "--deadline-remaining-seconds" in capsys.readouterr().out
