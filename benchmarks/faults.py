"""`python -m benchmarks.faults`: what becomes of requests and counts when Redis fails them.

Two targets behind two routers serve 16 streams while Redis is killed, silent, slow, replaced or
emptied. No request may fail, no count may be lost or doubled: accepted tokens as the answers told
them are those that the store has, exactly. And what another target has learnt both go by within a
second. About five minutes; QUICK=1: two. The last line printed is one JSON object; the exit status
is 1 if something that must hold does not.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.fault_load import NUM_STREAMS, Load
from benchmarks.fault_proxy import FaultProxy, Mode
from benchmarks.fault_servers import NUM_REPLICAS, Servers, running_app, running_servers, wait_for
from benchmarks.login import login
from benchmarks.machine import is_quick
from benchmarks.spread import paired_ratios, print_table
from cluster.embedded_redis import find_server
from policies.features import Features

HEALED_S = 5.0
LEARNT_S = (
    0.7  # of the second until others go by what one has learnt: it sends at 0.3 s at the latest
)


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
        caught_up_s = wait_for(lambda: self.servers.accepted().total() >= counted, HEALED_S)
        self.load.drain()
        exact_s = wait_for(lambda: self.servers.accepted() == +self.load.accepted, HEALED_S)
        outcome = Outcome(
            fault,
            self.load.num_answers - num_answers,
            len(self.load.failures) - num_failures,
            caught_up_s,
            exact_s is not None,
        )
        say(str(outcome))
        if not outcome.is_exact:
            say(f"the store has {self.servers.accepted()}, the truth is {+self.load.accepted}")
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

    def follows_others(self) -> bool:
        """Whether no target drafts any more with what another found to fail."""
        uses = self.load.num_draft_tokens()
        favourite = max(uses, key=lambda name: uses[name])
        self.servers.teach_that_drafts_fail(favourite, Features().num_cells)
        time.sleep(LEARNT_S)
        after = self.load.num_draft_tokens()
        say(f"drafted before {uses}, after {after}")
        return after[favourite] == 0

    def set_mode(self, mode: Mode) -> None:
        self.proxy.mode = mode

    def promote(self) -> None:
        """The leader dies, its replica takes over."""
        (replica,) = (port for port in self.servers.processes if port != self.servers.port)
        self.servers.kill()
        self.servers.command("REPLICAOF", "NO", "ONE", port=replica)
        self.servers.port = self.proxy.target = replica

    def _counted(self) -> int:
        lines = httpx.get(f"{self._url}/metrics", headers=login(), timeout=30).text.splitlines()
        name = "hedgerow:spec_decode_num_accepted_tokens_total"
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)))


def main() -> int:
    size = QUICK if is_quick() else FULL
    with tempfile.TemporaryDirectory() as name, running_servers(Path(name)) as (servers, proxy):
        say(f"{NUM_STREAMS} streams, {NUM_REPLICAS} targets and routers, {find_server()}")
        with running_app(Path(name), proxy.port) as url:
            trial = Trial(url, servers, proxy)
            outcomes = run_faults(trial, size)
            silent, well = trial.gaps(size.num_windows, size.window_s)
            follows = trial.follows_others()
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
    print(f"what another target learnt is gone by within a second: {follows}")
    holds = all(outcome.holds for outcome in outcomes) and follows and not failures
    print(json.dumps({"holds": holds, "gap_ratio": round(ratio.median, 3)}))
    return 0 if holds else 1


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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


if __name__ == "__main__":
    sys.exit(main())
