"""`python -m benchmarks.faults`: what becomes of requests and counts when Redis fails them.

Two targets behind two routers serve 16 streams while Redis is killed, silent, slow, replaced or
emptied. No request may fail, no round may take longer, no count may be lost or doubled: accepted
tokens as the answers told them are those that the store has, exactly. And both go within a second
by what a writer beside them has put into the store; it is this program, not a third target. About
fourteen minutes; QUICK=1: six. The last line printed is one JSON object; the exit status is 1 if
something that must hold does not.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.fault_load import NUM_STREAMS, Load
from benchmarks.fault_proxy import FaultProxy, Mode
from benchmarks.fault_servers import NUM_REPLICAS, Servers, running_app, running_servers, wait_for
from benchmarks.login import login
from benchmarks.machine import is_quick
from benchmarks.spread import Spread, paired_ratios, print_table
from cluster.embedded_redis import find_server
from policies.features import Features

HEALED_S = 5.0
MAX_GAP_RATIO = 1.1  # paired median: a round with a fault of Redis against one without
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


FULL = Size(60.0, 10.0, 12, 5.0)
QUICK = Size(10.0, 4.0, 8, 2.0)


@dataclass(slots=True)
class Outcome:
    """`caught_up_s` after healing, under load, the store had all that was counted until then;
    `is_exact`: after the last answer it had the truth. None: not within HEALED_S.

    `num_counted` are the accepted tokens that targets had counted when the fault was healed, and
    `num_accepted` those that answers told of, both of this fault alone: without any it shows
    nothing.
    """

    fault: str
    num_answers: int
    num_failures: int
    num_counted: int
    num_accepted: int
    caught_up_s: float | None
    is_exact: bool

    @property
    def holds(self) -> bool:
        has_shown = self.num_counted > 0 and self.num_accepted > 0
        is_well = not self.num_failures and self.caught_up_s is not None
        return has_shown and is_well and self.is_exact


@dataclass(frozen=True, slots=True)
class Fault:
    """What does it, what ends it, and how long it lasts between them."""

    name: str
    breaks: Callable[[], object]
    heals: Callable[[], object]
    lasts_s: float


class Trial:
    """The application under load, and its Redis."""

    def __init__(self, url: str, servers: Servers, proxy: FaultProxy) -> None:
        self.servers = servers
        self.proxy = proxy
        self.load = Load(url)
        self._url = url

    def run(self, fault: Fault) -> Outcome:
        num_answers, num_failures = self.load.num_answers, len(self.load.failures)
        num_counted, num_accepted = self._counted(), self.load.accepted.total()
        self.load.start()
        time.sleep(3.0)
        fault.breaks()
        time.sleep(fault.lasts_s)
        fault.heals()
        counted = self._counted()
        caught_up_s = wait_for(lambda: self.servers.accepted().total() >= counted, HEALED_S)
        self.load.drain()
        exact_s = wait_for(lambda: self.servers.accepted() == +self.load.accepted, HEALED_S)
        outcome = Outcome(
            fault.name,
            self.load.num_answers - num_answers,
            len(self.load.failures) - num_failures,
            counted - num_counted,
            self.load.accepted.total() - num_accepted,
            caught_up_s,
            exact_s is not None,
        )
        say(str(outcome))
        if not outcome.is_exact:
            say(f"the store has {self.servers.accepted()}, the truth is {+self.load.accepted}")
        return outcome

    def gap_ratios(self, fault: Fault, size: Size) -> Spread:
        """Median seconds between a stream's rounds with the fault, against those without it in the
        window beside it. Which comes first changes from pair to pair."""
        marks: dict[bool, list[float]] = {False: [], True: []}
        self.load.start()
        time.sleep(3.0)  # the first answers begin all at once
        for pair in range(size.num_windows):
            for is_broken in (False, True) if pair % 2 else (True, False):
                if is_broken:
                    fault.breaks()
                time.sleep(size.window_s)
                marks[is_broken].append(time.monotonic())
                if is_broken:
                    fault.heals()
        self.load.drain()
        broken, well = (
            [self._median_gap(end_s - 0.8 * size.window_s, end_s) for end_s in marks[is_broken]]
            for is_broken in (True, False)
        )
        ratios = paired_ratios(broken, well)
        say(f"{fault.name}: {ratios} of {[f'{gap:.3f}' for gap in well]} s")
        return ratios

    def _median_gap(self, start_s: float, end_s: float) -> float:
        return statistics.median(gap for at, gap in self.load.gaps if start_s < at <= end_s)

    def follows_others(self) -> bool:
        """Whether no target drafts any more with its favourite, once the store says that it fails.

        This program writes to the store what another target would have; the targets must read it.
        """
        uses = self.load.num_draft_tokens()
        favourite = max(uses, key=lambda name: uses[name])
        self.servers.teach_that_drafts_fail(favourite, Features().num_cells)
        time.sleep(LEARNT_S)
        after = self.load.num_draft_tokens()
        say(f"drafted before {uses}, after {after}")
        return uses[favourite] > 0 and after[favourite] == 0

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
            lasting, sudden = lasting_faults(trial, size), sudden_faults(trial)
            outcomes = [trial.run(fault) for fault in (*lasting, *sudden)]
            ratios = {fault.name: trial.gap_ratios(fault, size) for fault in lasting}
            follows = trial.follows_others()
            failures = trial.load.failures
    show(outcomes, ratios)
    for failure in failures[:5]:
        print(failure)
    print(f"what a writer beside them put into the store is gone by within a second: {follows}")
    waits = any(ratio.median > MAX_GAP_RATIO for ratio in ratios.values())
    holds = all(outcome.holds for outcome in outcomes) and follows and not failures and not waits
    medians = {name: round(ratio.median, 3) for name, ratio in ratios.items()}
    print(json.dumps({"holds": holds, "gap_ratio": medians}))
    return 0 if holds else 1


def show(outcomes: Sequence[Outcome], ratios: Mapping[str, Spread]) -> None:
    rows = [
        [each.fault, str(each.num_answers), str(each.num_failures), str(each.num_accepted),
         "no" if each.caught_up_s is None else f"{each.caught_up_s:.1f}", str(each.is_exact),
         str(ratios.get(each.fault, ""))]
        for each in outcomes
    ]  # fmt: skip
    print_table(
        "faults of Redis under load; a round with the fault against one without, paired medians",
        ["", "answers", "failed", "tokens accepted", "caught up after s", "exact", "round"],
        rows,
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def lasting_faults(trial: Trial, size: Size) -> list[Fault]:
    servers = trial.servers

    def restart() -> None:
        servers.start(servers.port)

    return [
        Fault("none", nothing, nothing, 2.0),
        Fault(f"killed for {size.killed_s:g} s", servers.kill, restart, size.killed_s),
        Fault("silent", *_modes(trial, "silent"), size.fault_s),
        Fault("200 ms slow", *_modes(trial, "slow"), size.fault_s),
    ]


def sudden_faults(trial: Trial) -> list[Fault]:
    servers = trial.servers

    def kill_and_restart() -> None:
        servers.kill()
        servers.start(servers.port)

    return [
        Fault("kill -9, started again", kill_and_restart, nothing, 0.0),
        Fault("FLUSHALL", lambda: servers.command("FLUSHALL"), nothing, 0.0),
        Fault("replica promoted", trial.promote, nothing, 0.0),
    ]


def nothing() -> None: ...


def _modes(trial: Trial, mode: Mode) -> tuple[Callable[[], object], Callable[[], object]]:
    return lambda: trial.set_mode(mode), lambda: trial.set_mode("pass")


if __name__ == "__main__":
    sys.exit(main())
