"""`python -m benchmarks.chaos`: what clients see of processes that are killed under load.

The whole application, exact, over a few layers of the embedded model: 16 streams and 16 unary
requests at once, and in the midst of them a process is killed, stopped or sent away; 20 times each.
The last line printed is one JSON object, by what was disturbed. The exit status is 1 if an answer
was lost, cut short unseen or changed that must not be. QUICK=1: twice each.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_app import HOST, App, running_app
from benchmarks.chaos_load import Load
from benchmarks.machine import describe_machine, is_quick
from benchmarks.shallow_model import write_shallow_model
from benchmarks.workbench import MODEL
from engine.model_files import resolve_model

NUM_LAYERS = 4
MAX_TOKENS = 60
RECOVERY_S = 120.0
MIN_SHARE_EXACT = 0.999


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

    def is_proven(self, loses_its_own: bool) -> bool:
        """An ingress replica's own requests may be lost, as long as that is seen."""
        is_honest = self.silent_truncations == self.changed == 0
        is_whole = self.lost_unary == 0 and (self.streams_exact >= MIN_SHARE_EXACT * self.streams)
        return is_honest and (loses_its_own or is_whole)

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
    loses_its_own: bool = False


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
    Disturbance("ingress", "Ingress", 2, kill, loses_its_own=True),
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
                round_s = load.learn()
                print(f"{num_targets} targets: 32 requests take {round_s:.1f} s", flush=True)
                for each in wanted:
                    found[each.name] = disturb(app, load, each, num_times, round_s)
                    is_proven &= found[each.name].is_proven(each.loses_its_own)
                    print(f"{each.name}: {dict(found[each.name].outcomes)}", flush=True)
    print(json.dumps({name: findings.figures for name, findings in found.items()}))
    return 0 if is_proven else 1


def disturb(app: App, load: Load, what: Disturbance, num_times: int, round_s: float) -> Findings:
    """Each time at another moment of a round of the load, and on another replica."""
    rng = random.Random(what.name)
    findings = Findings()
    for _ in range(num_times):
        app.wait_for_replicas(what.component, what.count)
        pid = rng.choice(app.pids(what.component))
        trouble = threading.Thread(
            target=_make_trouble,
            args=(app, load, what, pid, rng.uniform(0.1, 0.8) * round_s, findings),
        )
        trouble.start()
        for is_stream, outcome in load.play():
            findings.add(is_stream, outcome)
        trouble.join()
        what.undo(app, pid)
    app.wait_for_replicas(what.component, what.count)
    return findings


def _make_trouble(
    app: App, load: Load, what: Disturbance, pid: int, after_s: float, findings: Findings
) -> None:
    time.sleep(after_s)
    what.do(app, pid)
    findings.recoveries_s.append(load.probe(RECOVERY_S))


if __name__ == "__main__":
    sys.exit(main())
