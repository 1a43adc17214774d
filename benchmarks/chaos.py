"""`python -m benchmarks.chaos`: what clients see of processes that are killed under load.

The whole application, exact, over a few layers of the embedded model: 16 streams and 16 unary
requests at once, and in the midst of them a process is killed, stopped or sent away, 20 times each.
The documented front, which stands before the ingress then, asks again for what a replica of it
loses. The last line printed is one JSON object, by what was disturbed. The exit status is 1 if an
answer was lost, cut short unseen or changed that must not be. QUICK=1: twice each.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_app import HOST, App, running_app
from benchmarks.chaos_load import Load
from benchmarks.front import front
from benchmarks.machine import describe_machine, is_quick
from benchmarks.shallow_model import write_shallow_model
from benchmarks.workbench import MODEL
from engine.model_files import resolve_model

NUM_LAYERS = 4
MAX_TOKENS = 60
RECOVERY_S = 120.0
MIN_SHARE_EXACT = 0.999
MIN_SHARE_BESIDE = 0.25  # of streams, where one of the two ingress replicas dies with its own


@dataclass(slots=True)
class Findings:
    """Over all disturbances of one kind."""

    lost_unary: int = 0
    unary: int = 0
    streams: int = 0
    streams_exact: int = 0
    silent_truncations: int = 0
    changed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)

    def add(self, is_stream: bool, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self.silent_truncations += outcome == "silent"
        self.changed += outcome == "wrong"
        if is_stream:
            self.streams += 1
            self.streams_exact += outcome == "exact"
        else:
            self.unary += 1
            self.lost_unary += outcome != "exact"

    def is_proven(self, is_ingress: bool) -> bool:
        """An ingress replica's own streams end with it, as long as that is seen."""
        is_honest = self.silent_truncations == self.changed == 0
        min_share = MIN_SHARE_BESIDE if is_ingress else MIN_SHARE_EXACT
        is_whole = self.lost_unary == 0 and self.streams_exact >= min_share * self.streams
        return is_honest and is_whole

    @property
    def figures(self) -> dict[str, float]:
        return {
            "lost_unary": self.lost_unary,
            "streams": self.streams,
            "streams_exact": self.streams_exact,
            "silent_truncations": self.silent_truncations,
            "recovery_s": round(statistics.median(self.recoveries_s), 2),
        }


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What is done to one of `count` replicas of `component`, and how it is made good."""

    name: str
    component: str
    count: int
    do: Callable[[App, int], None]
    undo: Callable[[App, int], None] = lambda app, pid: None
    is_ingress: bool = False


def kill(app: App, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def stop(app: App, pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def go_on(app: App, pid: int) -> None:
    with suppress(ProcessLookupError):  # Serve has replaced it
        os.kill(pid, signal.SIGCONT)


def scale_down(app: App, pid: int) -> None:
    app.scale("Target", 1)


def scale_up(app: App, pid: int) -> None:
    app.wait_for_replicas("Target", 1)
    app.scale("Target", 2)


OF_TWO = (
    Disturbance("target", "Target", 2, kill),
    Disturbance("target_stopped", "Target", 2, stop, go_on),
    Disturbance("target_leaves", "Target", 2, scale_down, scale_up),
    Disturbance("drafter_host", f"Drafter-{HOST}", 1, kill),
    Disturbance("router", "Router", 1, kill),
    Disturbance("controller", "controller", 1, kill),
    Disturbance("ingress", "Ingress", 2, kill, is_ingress=True),
)
OF_ONE = (Disturbance("only_target", "Target", 1, kill),)


def main() -> int:
    print(describe_machine())
    num_times = 2 if is_quick() else 20
    chosen = os.environ.get("ONLY", "").split()
    found: dict[str, Findings] = {}
    is_proven = True
    with tempfile.TemporaryDirectory() as name:
        folder, shallow = Path(name), Path(name) / "model"
        shallow.mkdir()
        model = str(write_shallow_model(resolve_model(MODEL), NUM_LAYERS, shallow))
        for num_targets, disturbances in ((2, OF_TWO), (1, OF_ONE)):
            wanted = [each for each in disturbances if not chosen or each.name in chosen]
            if not wanted:
                continue
            with running_app(folder / f"of_{num_targets}", model, num_targets, 2) as app:
                load = Load(app.url, model, MAX_TOKENS)
                load.learn()
                round_s = load.time()
                print(f"{num_targets} targets: 32 requests take {round_s:.1f} s", flush=True)
                for each in wanted:
                    with _before(app, load, each.is_ingress):
                        found[each.name] = disturb(app, load, each, num_times, round_s)
                    is_proven &= found[each.name].is_proven(each.is_ingress)
                    print(f"{each.name}: {dict(found[each.name].outcomes)}", flush=True)
                    for error, number in load.errors.most_common(5):
                        print(f"  {number} times: {error}", flush=True)
                    load.errors.clear()
    print(json.dumps({name: findings.figures for name, findings in found.items()}))
    return 0 if is_proven else 1


def disturb(app: App, load: Load, what: Disturbance, num_times: int, round_s: float) -> Findings:
    """Each time at another moment of a round of the load, and on another replica."""
    rng = random.Random(what.name)
    findings = Findings()
    for _ in range(num_times):
        app.wait_for_replicas(what.component, what.count)
        pid = rng.choice(app.pids(what.component))
        after_s = rng.uniform(0.1, 0.8) * round_s
        with ThreadPoolExecutor(1) as thread:
            trouble = thread.submit(_make_trouble, app, load, what, pid, after_s)
            for is_stream, outcome in load.play():
                findings.add(is_stream, outcome)
            findings.recoveries_s.append(trouble.result())
        what.undo(app, pid)
    app.wait_for_replicas(what.component, what.count)
    return findings


def _make_trouble(app: App, load: Load, what: Disturbance, pid: int, after_s: float) -> float:
    """Seconds until a new request is answered."""
    time.sleep(after_s)
    what.do(app, pid)
    return load.probe(RECOVERY_S)


@contextmanager
def _before(app: App, load: Load, is_wanted: bool) -> Iterator[None]:
    """The front, with two ways to the same proxy."""
    if not is_wanted:
        yield
        return
    with front(app.port, app.port) as port:
        load.url = f"http://127.0.0.1:{port}"
        yield
    load.url = app.url


if __name__ == "__main__":
    sys.exit(main())
