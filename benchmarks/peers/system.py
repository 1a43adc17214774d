"""What the harness needs to know of a system: how to start it, and what it can be asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.peers import worker
from benchmarks.peers.answers import Answer
from benchmarks.peers.client import Endpoint, ask
from benchmarks.peers.exported import FOLDER
from benchmarks.peers.process_tree import StartError, last_words, started
from benchmarks.peers.workload import Cell
from deployments.serve_status import DIRECT

NUM_CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
NUM_THREADS = int(os.environ.get("THREADS") or NUM_CORES)
NUM_SEQUENCES = 32
NUM_KV_TOKENS = 16384
FLOAT32, BFLOAT16 = "float32", "bfloat16"
QUANTISED, HALF_WEIGHTS = "Q4_1 weights", "float16 weights"
PLAIN = "plain"
THREADS = {"OMP_NUM_THREADS": str(NUM_THREADS)}


class Running(Protocol):
    """A started system. All that it does is done by the process `pid` and those below it."""

    @property
    def pid(self) -> int: ...

    def ask(self, cell: Cell, mode: str) -> list[Answer]:
        """Raises OSError if it has gone."""
        ...


@dataclass(frozen=True, slots=True)
class System:
    """`starts` are the groups of modes that one process serves; `start` takes one of them.

    `missing` says why the system is left out, None if it is there; `measures` whether a mode is
    run in a cell, given by name.
    """

    name: str
    precision: str
    about: str
    starts: tuple[tuple[str, ...], ...]
    start: Callable[[Sequence[str]], AbstractContextManager[Running]]
    missing: Callable[[], str | None] = lambda: None
    measures: Callable[[str, str], bool] = lambda mode, cell: True
    is_ours: bool = False

    @property
    def modes(self) -> list[str]:
        return [mode for modes in self.starts for mode in modes]


@dataclass(frozen=True, slots=True)
class Worker:
    """A library in a process of its own."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, cell: Cell, mode: str) -> list[Answer]:
        return worker.ask(self.process, cell, mode)


@contextmanager
def working(module: str, num_threads: int = NUM_THREADS) -> Iterator[Running]:
    """Our own interpreter runs `module`, which answers cells."""
    root, log = str(Path(__file__).parents[2]), log_of(module.rpartition(".")[2])
    command = [sys.executable, "-m", module]
    environment = {"OMP_NUM_THREADS": str(num_threads), "PYTHONPATH": root}
    with started(command, environment, log, has_pipes=True) as process:
        try:
            worker.next_line(process)
        except OSError as error:
            raise StartError(last_words(log)) from error
        yield Worker(process)


@dataclass(frozen=True, slots=True)
class Server:
    """One mode that was chosen when it was started."""

    pid: int
    endpoint: Endpoint

    def ask(self, cell: Cell, mode: str) -> list[Answer]:
        return ask(self.endpoint, cell)


def answers_health(url: str) -> bool:
    """Of a server with /health."""
    try:
        with DIRECT.open(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def log_of(name: str) -> Path:
    return FOLDER / "logs" / f"{name}.log"


def interpreter(peer: str) -> Path:
    """Of the peer's own environment, which `make peer-NAME` makes."""
    return FOLDER / peer / "bin" / "python"


def not_installed(peer: str) -> str | None:
    return None if interpreter(peer).is_file() else f"not installed: make peer-{peer}"
