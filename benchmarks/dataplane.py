"""`python -m benchmarks.dataplane`: what it costs that a drafter runs in another process.

Round trips with a drafter that takes no time, beside Ray's own ways to the same process, in turns;
then the real model with that drafter: the part of its rounds that distribution takes, and the
bytes of each token. Drafts are never right there, so that every round emits one token and nothing
is spread over several. Then a slow drafter here and on a host, and how well a selector that learns
does with drafters there: fails if a round has over 1 % fewer tokens. The last line printed is one
JSON object. QUICK=1: within 60 s, too little to fail for.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, is_quick
from benchmarks.null_host import DRAFT_LENGTH, IDENTITY, NAME, NullHost, Question
from benchmarks.prompts import load_prompts
from benchmarks.remote_quality import measure_quality
from benchmarks.spread import print_table
from benchmarks.waves import measure_waves
from benchmarks.workbench import GREEDY, MODEL
from deployments.host_client import HostClient
from deployments.remote_drafter import RemoteDrafter
from deployments.startup import ray_environment
from deployments.transport_keys import TransportKeys
from deployments.wire import Wire
from engine.config import TargetConfig
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.engine import Engine
from engine.loaded_target import LoadedTarget
from engine.request import GenerationRequest
from engine.runner import ModelRunner
from engine.text import Text
from policies.fixed import FixedSelector

NUM_SEQUENCES = (1, 8, 64)
NUM_WARM_UP = 20
PROMPT_LENGTH = 100
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much to run."""

    num_calls: int
    num_ray_calls: int
    num_tokens: int
    streams: tuple[int, ...]
    num_pairs: int
    num_prompts: int  # of each domain, to compare how well drafters are chosen


FULL = Size(1000, 300, 96, (1, 8), 5, 6)
QUICK = Size(200, 50, 12, (1,), 1, 1)
MOST_LOST = 0.01  # of the tokens of a round, with drafters on a host


def main() -> int:
    size, secret = QUICK if is_quick() else FULL, secrets.token_hex(32)
    print(describe_machine())
    with ray_session() as ray:
        from ray import serve

        actor = ray.remote(NullHost).options(num_cpus=0).remote(secret)
        serve.start(proxy_location="Disabled")
        app = serve.deployment(ray_actor_options={"num_cpus": 0})(NullHost).bind(secret)
        handle = serve.run(app, name="null", route_prefix=None)
        wire = Wire(TransportKeys([secret]))
        client = HostClient(wire, IDENTITY, TIMEOUT_S)
        client.find([ray.get(actor.endpoint.remote())])
        assert client.wait(TIMEOUT_S), "the host does not answer"
        figures = measure_round_trips(
            WaitingDrafter(NAME, DRAFT_LENGTH, client),
            {
                "actor": lambda question: ray.get(actor.draft.remote(question)),
                "handle": lambda question: handle.draft.remote(question).result(),
            },
            size,
        )
        target = LoadedTarget.load(TargetConfig(MODEL, numerics="fast"))
        runner, text, longest = target.runner, target.text, target.max_sequence_length
        figures |= measure_rounds(client, runner, text, longest, size)
        client.close()
        wire.close()
    figures |= measure_waves(runner, text, longest, size.num_tokens, size.num_pairs, secret)
    figures |= measure_quality(runner, text, longest, size.num_prompts, size.num_tokens)
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))
    return 0 if is_quick() or figures["accepted_ratio"] >= 1.0 - MOST_LOST else 1


@contextmanager
def ray_session() -> Iterator[Any]:
    """A Ray of this program's own on the loopback, which ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="hb-"))
    os.environ.update(ray_environment(folder))
    import ray  # reads the environment

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=2**27,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class Growing:
    """Growing sequences, as an engine would ask about them."""

    num_sequences: int
    tokens: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = [list(range(PROMPT_LENGTH)) for _ in range(self.num_sequences)]

    def grow(self) -> None:
        for tokens in self.tokens:
            tokens.append(len(tokens))

    @property
    def names(self) -> list[str]:
        return [f"{self.num_sequences}.{i}" for i in range(self.num_sequences)]

    def drafts(self) -> list[DraftRequest]:
        return [
            DraftRequest(name, "t", tokens, PROMPT_LENGTH, GREEDY, DRAFT_LENGTH)
            for name, tokens in zip(self.names, self.tokens, strict=True)
        ]

    def scores(self) -> list[ScoreRequest]:
        return [
            ScoreRequest(name, "t", tokens, PROMPT_LENGTH, GREEDY)
            for name, tokens in zip(self.names, self.tokens, strict=True)
        ]

    def question(self) -> Question:
        return [(i, len(tokens) - 1, tokens[-1:]) for i, tokens in enumerate(self.tokens)]


def measure_round_trips(
    remote: RemoteDrafter, others: dict[str, Callable[[Question], object]], size: Size
) -> dict[str, float]:
    """Milliseconds; the ways of Ray beside each draft, some of the times."""
    figures: dict[str, float] = {}
    rows = []
    for num_sequences in NUM_SEQUENCES:
        growing = Growing(num_sequences)
        taken: dict[str, list[float]] = {name: [] for name in ("draft", "score", *others)}
        for call in range(NUM_WARM_UP + size.num_calls):
            growing.grow()
            drafts, scores = growing.drafts(), growing.scores()
            taken["draft"].append(milliseconds(partial(remote.draft, drafts)))
            growing.grow()
            taken["score"].append(milliseconds(partial(follow_and_score, remote, scores)))
            for name, ask in others.items() if call < NUM_WARM_UP + size.num_ray_calls else ():
                taken[name].append(milliseconds(partial(ask, growing.question())))
        remote.forget(growing.names)
        for name, values in taken.items():
            p50, p99 = percentiles(values[NUM_WARM_UP:])
            suffix = "" if num_sequences == 1 else f"_{num_sequences}"
            figures |= {f"{name}_p50_ms{suffix}": p50, f"{name}_p99_ms{suffix}": p99}
            rows.append((name, num_sequences, f"{p50:.3f}", f"{p99:.3f}"))
    print_table("round trips, ms", ["", "sequences", "p50", "p99"], rows)
    return figures


class WaitingDrafter(RemoteDrafter):
    """Stays until its scores have come, as no engine does, so that their way can be timed."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        super().score(requests)
        ids = [request.sequence_id for request in requests]
        asked = [question for each in ids for question, _ in self._scoring.get(each, ())]
        while waiting := [question for question in asked if not question.is_over]:
            self._client.wait_for(waiting, TIMEOUT_S)
        return [self._scored(each) for each in ids]


def follow_and_score(remote: RemoteDrafter, requests: Sequence[ScoreRequest]) -> None:
    remote.follow(requests)
    remote.score(requests)


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


class TimedDrafter(RemoteDrafter):
    """`seconds` counts what the engine's thread spends in it, waiting included."""

    seconds = 0.0

    def follow(self, sequences: Sequence[ScoreRequest]) -> None:
        with self._clock():
            super().follow(sequences)

    def ask(self, requests: Sequence[DraftRequest]) -> None:
        with self._clock():
            super().ask(requests)

    def take(self, wait_s: float) -> dict[str, Draft]:
        with self._clock():
            return super().take(wait_s)

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        with self._clock():
            return super().score(requests)

    def forget(self, sequence_ids: Iterable[str]) -> None:
        with self._clock():
            super().forget(sequence_ids)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


def measure_rounds(
    client: HostClient, runner: ModelRunner, text: Text, longest: int, size: Size
) -> dict[str, float]:
    """The part of a round that is lost, and the bytes of a token, with the real model."""
    config = TargetConfig(MODEL, numerics="fast")
    figures: dict[str, float] = {}
    rows = []
    for num_streams in size.streams:
        remote = TimedDrafter(NAME, DRAFT_LENGTH, client)
        engine = Engine(runner, text, [remote], config, longest)
        engine.use_selectors(FixedSelector(NAME, DRAFT_LENGTH), {})
        prompts = [p.text for p in islice(load_prompts("chat"), num_streams)]
        before, started = client.num_bytes, time.perf_counter()
        for i, prompt in enumerate(prompts):
            ids = tuple(text.encode(prompt, add_special_tokens=False))
            engine.submit(GenerationRequest(f"{i}", ids, size.num_tokens, GREEDY, ignore_eos=True))
        while engine.has_work:
            engine.step()
        share = remote.seconds / (time.perf_counter() - started)
        num_bytes = (client.num_bytes - before) / engine.counters().num_emitted_tokens
        suffix = "" if num_streams == 1 else f"_{num_streams}"
        figures |= {f"bytes_per_token{suffix}": num_bytes, f"round_overhead{suffix}": share}
        rows.append((f"{num_streams} streams", f"{num_bytes:.0f}", f"{100 * share:.2f} %"))
    print_table("the real model, nothing accepted", ["", "bytes a token", "of a round"], rows)
    return figures


if __name__ == "__main__":
    sys.exit(main())
