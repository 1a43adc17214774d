"""A process and all below it: started by a command, measured, and ended by process."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from benchmarks.peers.answers import Effort

START_S = 420.0
END_S = 60.0
SAMPLE_S = 1.0  # looking through all processes takes milliseconds
_NEUTRAL = ("PYTHONPATH", "OMP_NUM_THREADS")


class StartError(Exception):
    """A system that does not start; says why."""


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], log: Path, has_pipes: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """The process; with `has_pipes` its standard input and output are the caller's to use."""
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name not in _NEUTRAL}
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env={**inherited, **environment},
            stdin=subprocess.PIPE if has_pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if has_pipes else output,
            stderr=output,
            text=True,
        )
        try:
            yield process
        finally:
            end(process)


def wait_until(
    is_up: Callable[[], bool], process: subprocess.Popen[str], log: Path, timeout_s: float = START_S
) -> None:
    """Raises StartError with the log's last lines if the process ends or takes longer."""
    deadline_s = time.monotonic() + timeout_s
    while not is_up():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise StartError(last_words(log))
        time.sleep(0.2)


def last_words(log: Path, num_lines: int = 8) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-num_lines:])


def end(process: subprocess.Popen[str]) -> None:
    """It is asked to, then made to, and so is whatever it leaves behind."""
    tree = _tree(process.pid)
    _close(process.stdin)
    with suppress(OSError):
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    for each in tree:
        with suppress(psutil.Error):
            each.kill()
    process.wait(END_S)
    _close(process.stdout)


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with suppress(OSError):
            stream.close()


def _tree(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        own = psutil.Process(pid)
        return [own, *own.children(recursive=True)]
    return []


class Meter:
    """Measures the tree below `pid` while it is entered; `effort` is of what came since.

    Memory is resident memory added up, so that what processes share counts in each of them.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._peak_mb = 0.0
        self._before_s = self._cpu_s = 0.0

    def __enter__(self) -> Meter:
        self._before_s = _cpu_s(self._pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._cpu_s = _cpu_s(self._pid) - self._before_s
        self._stopping.set()
        self._thread.join()
        self._sample()

    @property
    def effort(self) -> Effort:
        return Effort(self._cpu_s, self._peak_mb)

    def _watch(self) -> None:
        while not self._stopping.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        self._peak_mb = max(self._peak_mb, _rss_mb(self._pid))


def _cpu_s(pid: int) -> float:
    """Of living processes, and of ended ones that their parents have waited for."""
    total = 0.0
    for process in _tree(pid):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _rss_mb(pid: int) -> float:
    total = 0.0
    for process in _tree(pid):
        with suppress(psutil.Error):
            total += process.memory_info().rss / 2**20
    return total
