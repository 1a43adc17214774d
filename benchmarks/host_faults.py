"""`python -m benchmarks.host_faults`: what a host that stops, or a bad network, costs the others.

The real model with a lookup drafter on a host of its own and the default selector, each fault in
pairs with plain decoding: the median over all tokens of the time that each took, and the slowest in
a hundred. "Own" is the time that the engine's thread computed or waited for the host: other
programs do not count. The last line printed is one JSON object, with the ratio of every pair.
Fails if a token differs, or, the medians of six pairs being some evidence, if one of these is more
than 1.1. Within 8 minutes; QUICK=1: one pair, within 2.
"""

from __future__ import annotations

import json
import secrets
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from benchmarks.host_process import LONGEST, NAME, lookup_host
from benchmarks.host_proxy import FaultProxy, Faults
from benchmarks.machine import describe_machine, is_quick
from benchmarks.prompts import load_prompts
from benchmarks.spread import print_table
from benchmarks.workbench import GREEDY, MODEL
from deployments.host_client import HostClient
from deployments.messages import Identity
from deployments.remote_drafter import RemoteDrafter
from deployments.sockets import Endpoint
from deployments.transport_keys import TransportKeys
from deployments.wire import Wire
from engine.config import TargetConfig
from engine.drafters.drafter import Drafter
from engine.engine import Engine
from engine.loaded_target import LoadedTarget
from engine.request import GenerationRequest
from engine.warm_up import measure_steps
from policies.arms import USUAL_LENGTHS, Arms, draft_lengths_up_to
from policies.cost_model import ArmPrices
from policies.survival import SurvivalSelector

IDENTITY = Identity("any", "any")
TIMEOUT_S = 0.1  # as a host's draft_timeout_s is, unless it is set
PATIENT_S = 10.0
STOP_AFTER_ROUNDS = 6
NUM_STREAMS = 4
MOST_RATIO = 1.1  # of the median of the pairs, to plain decoding's
NETWORKS = {
    "none": Faults(),
    "stopped": Faults(),
    "latency": Faults(min_delay_s=0.2, delay_s=0.2),
    "garbage": Faults(garbage=0.5),
    "reordered": Faults(delay_s=0.02, duplicate=0.5),
}
Ids = dict[str, list[int]]
Process = subprocess.Popen[str]


def main() -> int:
    print(describe_machine())
    num_pairs, num_tokens = (1, 24) if is_quick() else (6, 32)
    bench = Bench(num_tokens)
    found = {name: bench.compare(name, faults, num_pairs) for name, faults in NETWORKS.items()}
    header = ["fault", "median to plain's", "own", "p99, ms", "plain's", "accepted"]
    rows = [(name, *compared.row) for name, compared in found.items()]
    print_table("time of a token beside a faulty host", header, rows)
    is_exact = all(compared.is_exact for compared in found.values())
    holds = all(compared.holds for compared in found.values())
    figures = {k: v for name, compared in found.items() for k, v in compared.figures(name).items()}
    print(json.dumps({**figures, "exact": is_exact, "holds": holds}))
    if not is_exact:
        print("tokens differ from plain decoding's", file=sys.stderr)
    return 0 if is_exact and (holds or is_quick()) else 1


@dataclass(slots=True)
class Compared:
    """Of one fault, by pair: ratios to plain decoding, and the slowest tokens of both."""

    ratios: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    plain_p99_ms: list[float] = field(default_factory=list)
    num_accepted: int = 0
    is_exact: bool = True

    def add(self, run: Run, plain: Run) -> None:
        self.is_exact &= run.ids == plain.ids
        self.num_accepted += run.num_accepted
        self.ratios.append(statistics.median(run.seconds) / statistics.median(plain.seconds))
        own, plain_own = statistics.median(run.own_seconds), statistics.median(plain.own_seconds)
        self.own.append(own / plain_own)
        self.p99_ms.append(statistics.quantiles(run.seconds, n=100)[98] * 1e3)
        self.plain_p99_ms.append(statistics.quantiles(plain.seconds, n=100)[98] * 1e3)

    @property
    def holds(self) -> bool:
        return statistics.median(self.ratios) <= MOST_RATIO

    @property
    def row(self) -> tuple[str, ...]:
        p99, plain_p99 = statistics.median(self.p99_ms), statistics.median(self.plain_p99_ms)
        medians = (_with_spread(self.ratios), _with_spread(self.own))
        return (*medians, f"{p99:.0f}", f"{plain_p99:.0f}", f"{self.num_accepted}")

    def figures(self, name: str) -> dict[str, float | list[float]]:
        return {
            f"{name}_median_ratio": round(statistics.median(self.ratios), 4),
            f"{name}_own_ratio": round(statistics.median(self.own), 4),
            f"{name}_p99_ms": round(statistics.median(self.p99_ms), 4),
            f"{name}_plain_p99_ms": round(statistics.median(self.plain_p99_ms), 4),
            f"{name}_ratios": [round(ratio, 4) for ratio in self.ratios],
        }


def _with_spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.2f}-{max(ratios):.2f})"


class TimedWire(Wire):
    """`waited_s` is the time that the engine's thread has waited for hosts."""

    waited_s = 0.0

    def wait(self, timeout_s: float) -> None:
        started = time.perf_counter()
        super().wait(timeout_s)
        self.waited_s += time.perf_counter() - started


@dataclass(slots=True)
class Run:
    """The seconds are those of every token."""

    ids: Ids
    seconds: list[float] = field(default_factory=list)
    own_seconds: list[float] = field(default_factory=list)
    num_accepted: int = 0


@contextmanager
def faulty_host(faults: Faults) -> Iterator[tuple[Process, HostClient, TimedWire]]:
    secret = secrets.token_hex(32)
    keys = TransportKeys([secret])
    with ExitStack() as stack:
        process, endpoint = stack.enter_context(lookup_host(secret, IDENTITY))
        proxy = FaultProxy(endpoint, keys, faults)
        stack.callback(proxy.close)
        wire = TimedWire(keys)
        stack.callback(wire.close)
        yield process, _client(stack, wire, proxy.endpoint), wire


def _client(stack: ExitStack, wire: Wire, endpoint: Endpoint) -> HostClient:
    client = HostClient(wire, IDENTITY, TIMEOUT_S)
    stack.callback(client.close)
    client.find([endpoint])
    assert client.wait(PATIENT_S), "the host does not answer"
    return client


class Bench:
    """The real model, and some prompts whose answers repeat them."""

    def __init__(self, num_tokens: int) -> None:
        self._config = TargetConfig(MODEL, numerics="invariant")
        target = LoadedTarget.load(self._config)
        self._runner, text, self._longest = target.runner, target.text, target.max_sequence_length
        self._text = text
        self._steps = measure_steps(self._runner, 64, self._config.block_size)
        self._selector: SurvivalSelector | None = None  # learns from run to run
        prompts = islice(load_prompts("edit"), NUM_STREAMS)
        self._requests = [
            GenerationRequest(
                f"{i}",
                tuple(text.encode(prompt.text, add_special_tokens=False)),
                num_tokens,
                GREEDY,
                ignore_eos=True,
            )
            for i, prompt in enumerate(prompts)
        ]

    def _selector_for(self, engine: Engine) -> SurvivalSelector:
        arms = Arms({NAME: draft_lengths_up_to(LONGEST, USUAL_LENGTHS)})
        prices = ArmPrices(engine.costs, arms)
        if self._selector is None:
            self._selector = SurvivalSelector(arms, prices, np.random.default_rng(0))
        self._selector.use_arms(arms, prices)
        return self._selector

    def compare(self, name: str, faults: Faults, num_pairs: int) -> Compared:
        """In pairs with plain decoding, which is first as often; the host is there for both."""
        compared = Compared()
        with faulty_host(faults) as (process, client, wire):
            for pair in range(num_pairs):
                drafter = RemoteDrafter(NAME, LONGEST, client)
                stop = process if name == "stopped" else None
                runs: list[tuple[Sequence[Drafter], Process | None]] = [([], None)]
                runs.insert(pair % 2, ([drafter], stop))
                found = {bool(drafters): self.run(drafters, wire, stop) for drafters, stop in runs}
                compared.add(found[True], found[False])
                process.send_signal(signal.SIGCONT)
                client.forget_all()  # the next engine's sequences have the same names
                assert client.wait(PATIENT_S), "the host does not answer any more"
        return compared

    def run(self, drafters: Sequence[Drafter], wire: TimedWire, stopped: Process | None) -> Run:
        """`stopped` is the host's process, if it is to stop on the way."""
        engine = Engine(self._runner, self._text, drafters, self._config, self._longest)
        for step in self._steps:
            engine.costs.observe_step(step, num_draft_tokens=0)
        if drafters:
            engine.use_selectors(self._selector_for(engine), {})
        for request in self._requests:
            engine.submit(request)
        run = Run({request.sequence_id: [] for request in self._requests})
        last: dict[str, tuple[float, float]] = {}
        num_rounds = 0
        while engine.has_work:
            emissions = engine.step()
            now_s, own_s = time.perf_counter(), time.thread_time() + wire.waited_s
            num_rounds += bool(emissions)
            if stopped is not None and num_rounds == STOP_AFTER_ROUNDS:
                stopped.send_signal(signal.SIGSTOP)
            for emission in emissions:
                name, num_tokens = emission.sequence_id, len(emission.token_ids)
                run.ids[name] += emission.token_ids
                if name in last:
                    before_s, own_before_s = last[name]
                    run.seconds += [(now_s - before_s) / num_tokens] * num_tokens
                    run.own_seconds += [(own_s - own_before_s) / num_tokens] * num_tokens
                last[name] = now_s, own_s
        uses = engine.counters().per_drafter.values()
        run.num_accepted = sum(use.num_accepted_tokens for use in uses)
        return run


if __name__ == "__main__":
    sys.exit(main())
