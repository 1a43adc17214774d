"""Traces of concurrent requests that come, stop, go on and are cancelled at random times.

Each answer must be what the request says alone; a cancelled one, the beginning of that. Sets of 8
over one engine: HEDGEROW_TRACES says how many.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from typing import Any

from tiny_models import ids_of, run_all, tiny_engine
from tiny_requests import drafter, request

from benchmarks.random_selector import RandomSelector
from engine.engine import Engine
from engine.request import Emission, GenerationRequest

NUM_TRACES = int(os.environ.get("HEDGEROW_TRACES", "200"))
NUM_TOGETHER = 8
NUM_KV_TOKENS = 112  # too few for all at once
NUM_CANCELS = 1000


@dataclass(frozen=True, slots=True)
class Alone:
    """A request and what it says by itself."""

    request: GenerationRequest
    ids: tuple[int, ...]
    text: str
    finish_reason: str | None


def drawn(index: int) -> GenerationRequest:
    rng = random.Random(f"trace {index}")
    options: dict[str, Any] = rng.choice(
        [
            {},
            {"presence_penalty": 0.8, "frequency_penalty": 0.5},
            {"repetition_penalty": 1.3},
            {"top_p": 0.85, "top_k": 12},
            {"logit_bias": {5: 2.0, 9: -100.0}, "min_p": 0.02},
            {"min_tokens": 6, "ignore_eos": rng.random() < 0.5},
            {"stop": tuple(chr(ord("0") + rng.randrange(3, 61)) for _ in range(2))},
        ]
    )
    made = request(index, rng.choice((0.0, 0.7, 1.0)), max_tokens=rng.randint(1, 9), **options)
    return replace(
        made,
        prompt_ids=made.prompt_ids[:20],
        tenant=rng.choice("abc"),
        weight=rng.choice((0.5, 1.0, 4.0)),
        priority=rng.randint(-1, 1),
        kv_quota_tokens=rng.choice((None, None, 60)),
    )


def answered_alone(count: int) -> list[Alone]:
    found = []
    engine = tiny_engine()
    for index in range(count):
        asked = drawn(index)
        (emissions,) = run_all(engine, [asked]).values()
        text = "".join(each.text for each in emissions)
        found.append(Alone(asked, ids_of(emissions), text, emissions[-1].finish_reason))
    return found


class Trace:
    """One set: who comes at which round, who goes on from elsewhere, who is cancelled when."""

    def __init__(self, engine: Engine, known: list[Alone], seed: int) -> None:
        self._engine = engine
        self._rng = random.Random(seed)
        chosen = self._rng.sample(known, NUM_TOGETHER)
        self._coming = sorted(
            ((self._rng.randrange(4), each) for each in chosen), key=lambda pair: pair[0]
        )
        self._known = {each.request.sequence_id: each for each in chosen}
        self._num_said: dict[str, int] = {}
        self._emissions: dict[str, list[Emission]] = {}
        self.num_cancels = 0

    def play(self) -> None:
        number = 0
        while self._coming or self._engine.has_work:
            while self._coming and self._coming[0][0] <= number:
                self._submit(self._coming.pop(0)[1])
            for emission in self._engine.step():
                self._emissions[emission.sequence_id].append(emission)
            if self._rng.random() < 0.1:
                self._cancel()
            number += 1
        self._engine.check_integrity()
        assert self._engine.counters().num_kv_blocks_used == 0
        for name in self._emissions:
            self._compare(name)

    def _submit(self, alone: Alone) -> None:
        """Some have said a part of it elsewhere."""
        name = alone.request.sequence_id
        num_said = self._rng.randrange(len(alone.ids)) if self._rng.random() < 0.3 else 0
        self._num_said[name] = num_said
        self._emissions[name] = []
        self._engine.submit(replace(alone.request, emitted_ids=alone.ids[:num_said]))

    def _cancel(self) -> None:
        going_on = [name for name, said in self._emissions.items() if not _is_over(said)]
        if going_on:
            self._engine.cancel(self._rng.choice(going_on))
            self.num_cancels += 1

    def _compare(self, name: str) -> None:
        alone, said = self._known[name], self._emissions[name]
        ids = alone.ids[: self._num_said[name]] + ids_of(said)
        text = "".join(each.text for each in said)
        if _is_over(said):
            assert (ids, said[-1].finish_reason) == (alone.ids, alone.finish_reason)
            assert alone.text.endswith(text)
            assert self._num_said[name] or text == alone.text
        else:
            assert ids == alone.ids[: len(ids)]
            assert text in alone.text


def _is_over(said: list[Emission]) -> bool:
    return bool(said) and said[-1].finish_reason is not None


def test_each_answer_of_a_trace_is_the_one_that_it_is_alone() -> None:
    known = answered_alone(max(40, NUM_TRACES // 5))
    engine = tiny_engine(
        [drafter("prompt_lookup"), drafter("suffix")],
        num_kv_tokens=NUM_KV_TOKENS,
        max_num_sequences=6,
        max_batch_tokens=48,
    )
    engine.use_selectors(RandomSelector(1), {})
    num_cancels = 0
    for seed in range(NUM_TRACES):
        trace = Trace(engine, known, seed)
        trace.play()
        num_cancels += trace.num_cancels
    counters = engine.counters()
    assert num_cancels > NUM_TRACES // 4
    assert counters.num_preemptions > NUM_TRACES // 20
    assert sum(use.num_accepted_tokens for use in counters.per_drafter.values()) > NUM_TRACES // 4


def test_a_thousand_cancels_at_random_points_leave_no_block_in_use() -> None:
    rng = random.Random(5)
    engine = tiny_engine([drafter("prompt_lookup"), drafter("suffix")], num_kv_tokens=NUM_KV_TOKENS)
    engine.use_selectors(RandomSelector(2), {})
    live: set[str] = set()
    num_cancels = number = 0
    while num_cancels < NUM_CANCELS:
        while len(live) < 12:
            asked = replace(request(number, 1.0, max_tokens=40), tenant=rng.choice("ab"))
            live.add(asked.sequence_id)
            engine.submit(asked)
            number += 1
        for _ in range(rng.randint(1, 3)):
            for emission in engine.step():
                if emission.finish_reason is not None:
                    live.discard(emission.sequence_id)
        for name in rng.sample(sorted(live), min(len(live), rng.randint(1, 12))):
            engine.cancel(name)
            live.discard(name)
            num_cancels += 1
        engine.check_integrity()
        if not live:
            assert engine.counters().num_kv_blocks_used == 0
    for name in live:
        engine.cancel(name)
    assert not engine.has_work
    assert engine.counters().num_kv_blocks_used == 0
    engine.check_integrity()
