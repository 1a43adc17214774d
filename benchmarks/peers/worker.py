"""A program that answers cells over its standard input and output, a line of JSON each.

For systems that are libraries: each runs in a process of its own, to be measured as servers are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.peers.answers import Answer
from benchmarks.peers.workload import Cell, Job

Answering = Callable[[Cell, str], list[Answer]]
"""The answers to a cell in a mode, in the order of its jobs."""


def work(answer: Answering) -> None:
    """Until the input ends; whatever else is printed goes to standard error."""
    output, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps("ready"), file=output, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answers = answer(cell_of(asked["cell"]), asked["mode"])
        print(json.dumps([asdict(each) for each in answers]), file=output, flush=True)


def ask(process: subprocess.Popen[str], cell: Cell, mode: str) -> list[Answer]:
    """Raises OSError if the worker has ended."""
    assert process.stdin is not None
    process.stdin.write(json.dumps({"cell": asdict(cell), "mode": mode}) + "\n")
    process.stdin.flush()
    return [Answer(**each) for each in json.loads(next_line(process))]


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise OSError("the worker has ended")
    return line


def cell_of(document: Mapping[str, Any]) -> Cell:
    """As `asdict` and JSON made it."""
    jobs = tuple(
        Job(job["domain"], tuple(job["prompt_ids"]), job["num_tokens"]) for job in document["jobs"]
    )
    times = tuple(document["arrivals_s"])
    return Cell(document["name"], jobs, document["num_streams"], times)
