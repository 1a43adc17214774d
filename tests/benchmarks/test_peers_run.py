"""A run of the comparison with peers: who is started and asked, what is left out and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers.__main__ import Plan, Run
from benchmarks.peers.answers import Answer
from benchmarks.peers.process_tree import StartError
from benchmarks.peers.results import Results
from benchmarks.peers.system import Running, System
from benchmarks.peers.workload import QUICK, Cell, Job, cells
from benchmarks.prompts import DOMAINS

JOBS = {d: [Job(d, (i, n), 5 + i) for i in range(12)] for n, d in enumerate(DOMAINS)}
ANSWER = Answer("chat", 1.0, 0.5, 2.5, 11, 5, "text")


class _Echo:
    """Answers as it is asked, or not at all."""

    pid = 0

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def ask(self, cell: Cell, mode: str) -> list[Answer]:
        self.asked.append((cell.name, mode))
        if mode == "gone":
            raise OSError("it has gone")
        tokens = "ab" if mode == "plain" else "ax"
        return [replace(ANSWER, domain=job.domain, text=tokens) for job in cell.jobs]


def system(name: str, why: str | None = None, echo: _Echo | None = None) -> System:
    @contextmanager
    def start(modes: tuple[str, ...]) -> Iterator[Running]:
        if modes == ("broken",):
            raise StartError("first line\nno such device")
        yield echo or _Echo()

    starts = (("plain", "other"), ("broken",), ("gone",))
    return System(name, "float32", "", starts, start, lambda: why)  # type: ignore[arg-type]


def test_what_does_not_run_is_left_out_with_its_reason_and_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("benchmarks.peers.__main__.FOLDER", tmp_path)
    alone = cells(JOBS, QUICK)[0]
    found = Results()
    echo, warm = _Echo(), replace(alone, name="warm")
    plan = Plan(warm, [alone], {job.prompt_ids: ("a", "b") for job in alone.jobs}, 2)
    missing = system("two", "not installed: make peer-two")
    Run(plan, found).run([system("one", echo=echo), missing])
    assert echo.asked[:3] == [("warm", "plain"), ("warm", "other"), ("1", "plain")]
    assert set(found.rounds) == {"one/plain/1", "one/other/1"}
    assert found.left_out == {
        "one broken": "no such device",
        "one gone": "it has gone",
        "two": "not installed: make peer-two",
    }
    assert found.equal_share("one/plain/1") == 1.0
    assert found.equal_share("one/other/1") == 0.5
    assert set(json.loads((tmp_path / "results.json").read_text())) == set(found.rounds)
