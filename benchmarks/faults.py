"""`python -m benchmarks.faults`: what becomes of requests and counts when Redis fails them.

The application serves 16 streams while its Redis is killed, silent, slow, replaced or emptied. No
request may fail, no count may be lost or doubled: accepted tokens as the answers told them are
those that the store has, exactly. About five minutes; QUICK=1: two. The last line printed is one
JSON object; the exit status is 1 if something that must hold does not.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.fault_load import NUM_STREAMS, Load
from benchmarks.fault_proxy import FaultProxy, Mode
from benchmarks.machine import is_quick
from benchmarks.spread import paired_ratios, print_table
from cluster.embedded_redis import find_server
from cluster.statistics.cells import SurvivalCell, cell_of
from cluster.statistics.client import connect
from cluster.statistics.redis_store import RedisStore, pools
from cluster.statistics.store import StoreError
from cluster.yaml_file import read_yaml, write_yaml

HEALED_S = 5.0
START_S = 300.0


@dataclass(frozen=True, slots=True)
class Size:
    """How long faults last, and how many windows with and without Redis are compared."""

    killed_s: float
    fault_s: float
    num_windows: int
    window_s: float


FULL = Size(60.0, 10.0, 5, 8.0)
QUICK = Size(10.0, 4.0, 2, 4.0)


@dataclass(slots=True)
class Servers:
    """A Redis and its replica behind the proxy. `port` is the one that leads."""

    folder: Path
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    port: int = 0

    def start(self, port: int = 0, leader: int = 0) -> int:
        """On a free port, or again on an earlier one with its data."""
        port = port or _free_port()
        data = self.folder / str(port)
        data.mkdir(exist_ok=True)
        arguments = ["--port", port, "--bind", "127.0.0.1", "--dir", data, "--appendonly", "yes"]
        arguments += ["--save", "", "--repl-diskless-sync-delay", "0"]
        if leader:
            arguments += ["--replicaof", "127.0.0.1", leader]
        command = [str(find_server()), *map(str, arguments)]
        self.processes[port] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _wait_for(lambda: self.is_up(port), 20.0)
        return port

    def is_up(self, port: int) -> bool:
        with suppress(Exception), connect(f"redis://127.0.0.1:{port}", 1.0) as client:
            return bool(client.ping())
        return False

    def command(self, *words: str, port: int = 0) -> object:
        with connect(f"redis://127.0.0.1:{port or self.port}", 5.0) as client:
            answer: object = client.execute_command(*words)
            return answer

    def kill(self) -> None:
        self.processes[self.port].kill()
        self.processes[self.port].wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def accepted(self) -> Counter[str]:
        """By drafter, the accepted tokens that the store has; nothing while it cannot be asked."""
        found: Counter[str] = Counter()
        with suppress(StoreError), connect(f"redis://127.0.0.1:{self.port}", 5.0) as client:
            for _, pool in pools(client):
                for state in RedisStore(client, pool).read({}, 999).tables.values():
                    for name, count in state.cells.items():
                        cell = cell_of(name)
                        if isinstance(cell, SurvivalCell) and cell.count == "passed":
                            found[cell.drafter] += count
        return +found


@dataclass(slots=True)
class Outcome:
    """`caught_up_s` after healing, under load, the store had all that was counted until then;
    `is_exact`: after the last answer it had the truth. None: not within HEALED_S."""

    fault: str
    num_answers: int
    num_failures: int
    caught_up_s: float | None
    is_exact: bool

    @property
    def holds(self) -> bool:
        return not self.num_failures and self.caught_up_s is not None and self.is_exact


class Trial:
    """The application under load, and its Redis."""

    def __init__(self, url: str, servers: Servers, proxy: FaultProxy) -> None:
        self.servers = servers
        self.proxy = proxy
        self.load = Load(url)
        self._url = url

    def run(
        self, fault: str, breaks: Callable[[], object], heals: Callable[[], object], lasts_s: float
    ) -> Outcome:
        num_answers, num_failures = self.load.num_answers, len(self.load.failures)
        self.load.start()
        time.sleep(3.0)
        breaks()
        time.sleep(lasts_s)
        heals()
        counted = self._counted()
        caught_up_s = _wait_for(lambda: self.servers.accepted().total() >= counted, HEALED_S)
        self.load.drain()
        exact_s = _wait_for(lambda: self.servers.accepted() == +self.load.accepted, HEALED_S)
        outcome = Outcome(
            fault,
            self.load.num_answers - num_answers,
            len(self.load.failures) - num_failures,
            caught_up_s,
            exact_s is not None,
        )
        print(outcome, file=sys.stderr, flush=True)
        if exact_s is None:
            print(self.servers.accepted(), +self.load.accepted, file=sys.stderr, flush=True)
        return outcome

    def gaps(self, num_windows: int, window_s: float) -> tuple[list[float], list[float]]:
        """Median seconds between a stream's items, with Redis and with a silent one, in turns."""
        medians: dict[Mode, list[float]] = {"pass": [], "silent": []}
        self.load.start()
        marks: list[tuple[Mode, float]] = []
        for window in range(2 * num_windows):
            self.proxy.mode = "silent" if window % 2 else "pass"
            time.sleep(window_s)
            marks.append((self.proxy.mode, time.monotonic()))
        self.proxy.mode = "pass"
        self.load.drain()
        for mode, end_s in marks:
            start_s = end_s - 0.8 * window_s
            gaps = [gap for at, gap in self.load.gaps if start_s < at <= end_s]
            medians[mode].append(statistics.median(gaps))
        return medians["silent"], medians["pass"]

    def set_mode(self, mode: Mode) -> None:
        self.proxy.mode = mode

    def promote(self) -> None:
        """The leader dies, its replica takes over."""
        (replica,) = (port for port in self.servers.processes if port != self.servers.port)
        self.servers.kill()
        self.servers.command("REPLICAOF", "NO", "ONE", port=replica)
        self.servers.port = self.proxy.target = replica

    def _counted(self) -> int:
        lines = httpx.get(f"{self._url}/metrics", timeout=30).text.splitlines()
        name = "hedgerow:spec_decode_num_accepted_tokens_total"
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)))


def main() -> int:
    size = QUICK if is_quick() else FULL
    with tempfile.TemporaryDirectory() as name, running_servers(Path(name)) as (servers, proxy):
        print(f"{NUM_STREAMS} streams; server: {find_server().name}", file=sys.stderr)
        with running_app(Path(name), proxy.port) as url:
            trial = Trial(url, servers, proxy)
            outcomes = run_faults(trial, size)
            silent, well = trial.gaps(size.num_windows, size.window_s)
            failures = trial.load.failures
    ratio = paired_ratios(silent, well)
    print_table(
        "faults of Redis under load",
        ["", "answers", "failed", "caught up after s", "exact"],
        [
            [each.fault, str(each.num_answers), str(each.num_failures),
             "no" if each.caught_up_s is None else f"{each.caught_up_s:.1f}", str(each.is_exact)]
            for each in outcomes
        ],
    )  # fmt: skip
    print(f"seconds between items, silent Redis against a well one, paired medians: {ratio}")
    for failure in failures[:5]:
        print(failure)
    holds = all(outcome.holds for outcome in outcomes) and not failures
    print(json.dumps({"holds": holds, "gap_ratio": round(ratio.median, 3)}))
    return 0 if holds else 1


def run_faults(trial: Trial, size: Size) -> list[Outcome]:
    servers = trial.servers

    def restart() -> None:
        servers.start(servers.port)

    def nothing() -> None: ...

    def kill_and_restart() -> None:
        servers.kill()
        restart()

    return [
        trial.run("none", nothing, nothing, 2.0),
        trial.run(f"killed for {size.killed_s:g} s", servers.kill, restart, size.killed_s),
        trial.run("silent", *_modes(trial, "silent"), size.fault_s),
        trial.run("200 ms slow", *_modes(trial, "slow"), size.fault_s),
        trial.run("kill -9, started again", kill_and_restart, nothing, 0.0),
        trial.run("FLUSHALL", lambda: servers.command("FLUSHALL"), nothing, 0.0),
        trial.run("replica promoted", trial.promote, nothing, 0.0),
    ]


def _modes(trial: Trial, mode: Mode) -> tuple[Callable[[], object], Callable[[], object]]:
    return lambda: trial.set_mode(mode), lambda: trial.set_mode("pass")


@contextmanager
def running_servers(folder: Path) -> Iterator[tuple[Servers, FaultProxy]]:
    servers = Servers(folder)
    try:
        servers.port = servers.start()
        servers.start(leader=servers.port)
        proxy = FaultProxy(servers.port)
        yield servers, proxy
        proxy.close()
    finally:
        servers.close()


@contextmanager
def running_app(folder: Path, redis_port: int) -> Iterator[str]:
    """The URL of ray_config.yaml's application. Its selector hears of chosen drafts alone, so that
    the answers tell all that is counted."""
    document: Any = read_yaml(Path("ray_config.yaml"))
    (target,) = [d for d in document["applications"][0]["deployments"] if d["name"] == "Target"]
    target["user_config"]["selector"]["evaluation_share"] = 0.0
    config, port = folder / "ray_config.yaml", _free_port()
    write_yaml(config, document)
    environment = {**os.environ, "REDIS_URL": f"redis://127.0.0.1:{redis_port}"}
    command = [sys.executable, "-m", "deployments.serve", str(config), "--port", str(port)]
    with (folder / "app.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        if _wait_for(lambda: b"Ctrl-C ends it" in (folder / "app.log").read_bytes(), START_S):
            yield url
        else:
            raise SystemExit((folder / "app.log").read_text(errors="replace"))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60.0)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(condition: Callable[[], bool], timeout_s: float) -> float | None:
    """The seconds that it took, None if it took longer."""
    start_s = time.monotonic()
    while not condition():
        if time.monotonic() - start_s > timeout_s:
            return None
        time.sleep(0.05)
    return time.monotonic() - start_s


if __name__ == "__main__":
    sys.exit(main())
