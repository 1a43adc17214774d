"""A forward of fixed shape says what one of the batch's own shape says, recorded or not.

There is no GPU here: what a graph would replay is run again, over the same tensors.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from kernels import attend_by_rows
from plain_answers import plain_answer
from tiny_models import FAMILIES, VOCAB, LetterText, ids_of, run_all, tiny_model
from tiny_requests import drafter, request

from engine.config import TargetConfig
from engine.engine import Engine
from engine.models import build_runner, prepare_model
from engine.packed_batch import Packer
from engine.packed_forward import SIZES, Output, PackedForward, Record
from engine.runner import Extension, ModelRunner
from policies.fixed import FixedSelector

BLOCK_SIZE = 4


class Recorder:
    """Runs again what it recorded, into the tensors of the first time, as a graph does."""

    def __init__(self, num_failing: int = 0) -> None:
        self.num_recorded = self.num_replayed = 0
        self.num_failing = num_failing

    def record(self, forward: Callable[[], Output]) -> Callable[[], Output]:
        if self.num_failing:
            self.num_failing -= 1
            raise RuntimeError("operation not permitted when stream is capturing")
        self.num_recorded += 1
        recorded = forward()

        def replay() -> Output:
            self.num_replayed += 1
            again = forward()
            recorded.rows.copy_(again.rows)
            if recorded.states is not None and again.states is not None:
                recorded.states.copy_(again.states)
            return recorded

        return replay


def packed_runner(family: str, record: Record | None, num_kv_tokens: int = 512) -> ModelRunner:
    """In the form for a GPU, with a kernel of plain torch."""
    model = prepare_model(tiny_model(family), "cpu")
    runner = build_runner(model, num_kv_tokens, BLOCK_SIZE, "fast")
    packer = Packer(runner._cache, attend_by_rows, 3)
    runner._packed = PackedForward(runner._forward, packer, record)
    return runner


def batches(seed: int, num_batches: int) -> list[list[Extension]]:
    """Of five texts that grow side by side, by a prefill chunk, a draft or a token each."""
    rng = random.Random(seed)
    blocks = rng.sample(range(120), 120)
    tables = [blocks[i * 20 : i * 20 + 20] for i in range(5)]
    ends = [0] * 5
    found = []
    for _ in range(num_batches):
        batch = []
        for i in rng.sample(range(5), rng.randint(1, 5)):
            tokens = [rng.randrange(VOCAB) for _ in range(rng.choice([1, 1, 1, 4, 17]))]
            num_logits = rng.choice([0, 1, len(tokens)])
            if ends[i] + len(tokens) <= 80:
                batch.append(Extension(tokens, ends[i], tables[i], num_logits))
                ends[i] += rng.randint(1, len(tokens))
        if sum(extension.num_logits for extension in batch):
            found.append(batch)
    return found


@pytest.mark.parametrize("is_recorded", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_tiles(family: str, is_recorded: bool) -> None:
    recorder = Recorder()
    model = prepare_model(tiny_model(family), "cpu")
    expecting = build_runner(model, 512, BLOCK_SIZE, "fast")
    packed = packed_runner(family, recorder.record if is_recorded else None)
    cases = batches(1, 25)
    for batch in cases:
        expected, found = expecting.extend(batch), packed.extend(batch)
        assert found.num_rows == expected.num_rows
        for row in range(found.num_rows):
            np.testing.assert_allclose(found.row(row), expected.row(row), atol=2e-4)
    assert (recorder.num_recorded > 3) == is_recorded
    assert recorder.num_replayed == (len(cases) if is_recorded else 0)
    assert recorder.num_recorded <= len(SIZES)


@pytest.mark.parametrize("numerics", ["recorded", "as it is"])
def test_states_are_those_of_tiles(numerics: str) -> None:
    record = Recorder().record if numerics == "recorded" else None
    packed = packed_runner("llama", record)
    expecting = build_runner(prepare_model(tiny_model(), "cpu"), 512, BLOCK_SIZE, "fast")
    packed.extend([Extension([1], 0, [0], 1)])  # recorded without states
    states = [runner.keep_hidden_states() for runner in (expecting, packed)]
    packer = Packer(packed._cache, attend_by_rows, 3)
    packed._packed = PackedForward(packed._forward, packer, record)
    for batch in batches(2, 10):
        rows = [runner.extend(batch).states for runner in (expecting, packed)]
        torch.testing.assert_close(rows[1], rows[0], atol=1e-4, rtol=1e-4)
        for each in batch:
            end = each.start + len(each.tokens)
            expected, found = (of.read(each.block_table, each.start, end) for of in states)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_logits_rows_outlive_the_next_forward() -> None:
    packed = packed_runner("llama", Recorder().record)
    first = packed.extend([Extension([5, 6], 0, [0], 2)])
    greedy = first._rows.argmax(-1).tolist()
    packed.extend([Extension([9, 8], 0, [1], 2)])
    assert [first.greedy(0), first.greedy(1)] == greedy


def test_padding_stores_nothing_where_anybody_reads() -> None:
    packed = packed_runner("llama", Recorder().record)
    for side in (side for pair in packed._cache.layers for side in pair):
        side.fill_(7.0)
    packed.extend([Extension([5, 6, 7], 2, [3, 9], 1)])  # of a recorded four
    for side in (side for pair in packed._cache.layers for side in pair):
        slots = side[: packed._cache.num_blocks].flatten(0, 1)
        changed = (slots != 7.0).flatten(1).any(1).nonzero()[:, 0].tolist()
        assert changed == [14, 15, 36]


@pytest.mark.parametrize("num_failing", [1, 2])
def test_what_cannot_be_recorded_runs_as_it_is_from_then_on(num_failing: int) -> None:
    recorder = Recorder(num_failing)
    packed, plain = packed_runner("llama", recorder.record), packed_runner("llama", None)
    for batch in batches(3, 8):
        found, expected = packed.extend(batch), plain.extend(batch)
        np.testing.assert_array_equal(found.row(0), expected.row(0))
    assert (recorder.num_recorded, recorder.num_failing) == (0, num_failing - 1)


def test_more_tokens_or_blocks_than_there_is_room_for_run_as_they_are() -> None:
    recorder = Recorder()
    packed = packed_runner("llama", recorder.record, num_kv_tokens=640)
    packed.extend([Extension([3] * 257, 0, range(70), 1)])
    assert recorder.num_recorded == 0
    packed.extend([Extension([3], 639, range(160), 1)] * 16)
    assert recorder.num_recorded == 1
    found = packed.extend([Extension([3], 639, range(160), 1)] * 32)
    assert (found.num_rows, recorder.num_recorded) == (32, 1)


@pytest.mark.parametrize("name", ["prompt_lookup", "model"])
def test_an_engine_says_what_it_says_without(name: str) -> None:
    recorder = Recorder()
    runner = packed_runner("llama", recorder.record, num_kv_tokens=2048)
    config = TargetConfig("tiny", num_kv_tokens=2048, block_size=4, max_batch_tokens=64)
    config = replace(config, max_num_sequences=8)
    engine = Engine(runner, LetterText(), [drafter(name)], config, 256)
    engine.use_selectors(FixedSelector(name, 5), {})
    requests = [request(700 + i, (0.0, 0.7, 1.0)[i % 3]) for i in range(8)]
    emissions = run_all(engine, requests)
    for asked in requests:
        assert ids_of(emissions[asked.sequence_id]) == ids_of(plain_answer(asked))
    assert recorder.num_replayed > 5
