"""The engine over a toy target whose logits are a hash of all tokens that its KV cache shows it.

One stale, lost or foreign cell of the cache changes every logit after it. Expected answers come
from a loop over the definition that knows no engine; the drafter knows them, and errs at random.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import TargetConfig
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.draws import Draw
from engine.engine import Engine
from engine.request import Emission, GenerationRequest, SamplingParams
from engine.runner import Extension
from engine.sampling import TokenSampler, log_probs_of
from policies.fixed import FixedSelector

VOCAB, EOS, BLOCK_SIZE = 24, 2, 4
Row = NDArray[np.float32]


def toy_row(tokens: Sequence[int]) -> Row:
    """The target's logits after `tokens`; a few are likely, so that penalties matter."""
    digest = hashlib.sha256(bytes(tokens)).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return (rng.normal(size=VOCAB) * 1.5).astype(np.float32)


class ToyLogits:
    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def draw_ahead(self, draws: Sequence[Draw]) -> None:
        pass

    def draw(self, row: int, sampler: TokenSampler, position: int) -> int:
        return sampler.sample(self._rows[row], position)

    def row(self, row: int) -> Row:
        return self._rows[row]


class ToyRunner:
    """Reads back through the block table what was ever written."""

    vocab_size = VOCAB
    hidden_states = None

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], int] = {}

    def extend(self, extensions: Sequence[Extension]) -> ToyLogits:
        for extension in extensions:
            for position, token in enumerate(extension.tokens, extension.start):
                self._cells[self._cell(extension, position)] = token
        return ToyLogits(
            [
                toy_row([self._cells[self._cell(extension, p)] for p in range(end - i)])
                for extension in extensions
                for end in [extension.start + len(extension.tokens)]
                for i in reversed(range(extension.num_logits))
            ]
        )

    def _cell(self, extension: Extension, position: int) -> tuple[int, int]:
        return extension.block_table[position // BLOCK_SIZE], position % BLOCK_SIZE


def letter(token: int) -> str:
    return "" if token == EOS else chr(ord("a") + token)


class Letters:
    eos_token_ids: tuple[int, ...] = (EOS,)

    def detokenizer(self) -> Letters:
        return self

    def push(self, token_id: int) -> str:
        return letter(token_id)

    def flush(self) -> str:
        return ""


class Answer:
    """What a request must say: by the definition, one token at a time, on the whole text."""

    def __init__(self, asked: GenerationRequest) -> None:
        tokens, params = list(asked.prompt_ids), replace(asked.sampling, masked_ids=(EOS,))
        self.ids: list[int] = []
        self.text, self.reason, self.logprobs = "", "", []
        while not self.reason:
            row = toy_row(tokens)
            sampler = TokenSampler(params, asked.prompt_ids)
            for token in self.ids:
                sampler.push(token)
            token = sampler.sample(row, len(tokens))
            tokens.append(token)
            self.ids.append(token)
            if params.logprobs is not None:
                self.logprobs.append(log_probs_of(row, token, params.logprobs))
            self._finish(token, asked)

    def _finish(self, token: int, asked: GenerationRequest) -> None:
        self.text += letter(token)
        found = [at for stop in asked.stop if (at := self.text.find(stop)) >= 0]
        if token == EOS or found:
            self.reason = "stop"
            self.text = self.text[: min(found, default=None)]
        elif len(self.ids) == asked.max_tokens:
            self.reason = "length"


class Oracle:
    """Drafts the expected answer, with a wrong token at a random place, or with none."""

    name, is_free, max_draft_length = "oracle", False, 8

    def __init__(self, texts: Mapping[str, Sequence[int]]) -> None:
        self._texts = texts
        self._rng = random.Random(4)
        self.rejected: list[list[int]] = []  # texts that ended in a wrong draft

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._one(asked) for asked in requests]

    def _one(self, asked: DraftRequest) -> Draft:
        known = len(asked.tokens)
        draft = list(self._texts[asked.sequence_id][known : known + asked.draft_length])
        draft += [3] * (asked.draft_length - len(draft))
        wrong = self._rng.randrange(12)
        if wrong < len(draft):
            draft[wrong] = (draft[wrong] + 1) % VOCAB
            self.rejected.append([*asked.tokens, *draft])
        return Draft(known, tuple(draft))

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        return [[] for _ in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        pass


def request(name: str, rng: random.Random, **options: Any) -> GenerationRequest:
    prompt = tuple(rng.randrange(3, VOCAB) for _ in range(rng.randint(1, 14)))
    fields: dict[str, Any] = {"max_tokens": rng.randint(1, 24), "prompt_ids": prompt}
    for key in ("stop", "max_tokens", "prompt_ids", "tenant"):
        if key in options:
            fields[key] = options.pop(key)
    sampling = SamplingParams(seed=rng.randrange(2**40), **options)
    return GenerationRequest(sequence_id=name, sampling=sampling, **fields)


def run(requests: Sequence[GenerationRequest], num_kv_tokens: int = 1024) -> tuple[Engine, Oracle]:
    """Decodes all together, speculatively, and holds every answer to the definition."""
    answers = {asked.sequence_id: Answer(asked) for asked in requests}
    oracle = Oracle({r.sequence_id: [*r.prompt_ids, *answers[r.sequence_id].ids] for r in requests})
    config = TargetConfig(
        "toy", num_kv_tokens=num_kv_tokens, block_size=BLOCK_SIZE, max_batch_tokens=16
    )
    runner: Any = ToyRunner()
    engine = Engine(runner, Letters(), [oracle], config, num_kv_tokens)
    engine.use_selectors(FixedSelector("oracle", 8), {})
    play(engine, requests, answers)
    return engine, oracle


def play(
    engine: Engine, requests: Sequence[GenerationRequest], answers: Mapping[str, Answer]
) -> None:
    emissions: dict[str, list[Emission]] = {name: [] for name in answers}
    for asked in requests:
        engine.submit(asked)
    for _ in range(60 * len(requests)):
        for emission in engine.step():
            emissions[emission.sequence_id].append(emission)
        engine.check_integrity()
    assert not engine.has_work, "it does not come to an end"
    for name, answer in answers.items():
        got = emissions[name]
        assert [token for emission in got for token in emission.token_ids] == answer.ids
        assert "".join(emission.text for emission in got) == answer.text
        assert got[-1].finish_reason == answer.reason
        assert [entry for emission in got for entry in emission.logprobs] == answer.logprobs


OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {},
    "penalties": {"presence_penalty": 0.7, "frequency_penalty": 0.6, "repetition_penalty": 1.4},
    "greedy penalties": {"temperature": 0.0, "frequency_penalty": 2.0},
    "truncated": {"temperature": 1.5, "top_k": 9, "top_p": 0.9, "min_p": 0.02},
    "no early end": {"min_tokens": 7, "logit_bias": {EOS: 2.5}},
    "log-probs": {"logprobs": 2},
    "stop strings": {"stop": ("ab", "d", "xyz", "m")},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_option_says_what_the_definition_says(options: dict[str, Any]) -> None:
    rng = random.Random(str(options))
    engine, _ = run([request(f"{i}", rng, **dict(options)) for i in range(12)])
    use = engine.counters().per_drafter["oracle"]
    assert 0 < use.num_accepted_tokens < use.num_draft_tokens
    assert use.num_accepted_tokens > use.num_rounds


def mixed(num_requests: int, seed: int) -> list[GenerationRequest]:
    rng = random.Random(seed)
    options = list(OPTIONS.values())
    return [request(f"{seed}/{i}", rng, **dict(rng.choice(options))) for i in range(num_requests)]


def test_a_mixed_batch_says_what_the_definition_says() -> None:
    run(mixed(24, seed=1))


@pytest.mark.parametrize("num_kv_tokens", [40, 60])
def test_preemption_says_what_the_definition_says(num_kv_tokens: int) -> None:
    rng = random.Random(2)
    long = [request(f"{i}", rng, max_tokens=24, logit_bias={EOS: -100.0}) for i in range(6)]
    engine, _ = run([*long, *mixed(18, seed=2)], num_kv_tokens)
    assert engine.counters().num_preemptions > 0


def test_a_long_prompt_in_chunks_says_what_the_definition_says() -> None:
    rng = random.Random(3)
    prompts = [tuple(rng.randrange(3, VOCAB) for _ in range(70)) for _ in range(3)]
    run([request(f"{i}", rng, prompt_ids=prompt) for i, prompt in enumerate(prompts)])


def test_what_was_said_is_found_again_and_says_the_same() -> None:
    requests = mixed(10, seed=5)
    engine, _ = run(requests)
    answers = {asked.sequence_id: Answer(asked) for asked in requests}
    play(engine, requests, answers)
    assert engine.counters().num_cached_tokens > 20


def test_a_prompt_that_goes_on_with_a_rejected_draft_finds_only_what_is_true() -> None:
    rng = random.Random(6)
    engine, oracle = run([request(f"{i}", rng, max_tokens=24) for i in range(8)])
    assert len(oracle.rejected) > 10
    again = [
        request(f"again {i}", rng, prompt_ids=(*tokens, 5), max_tokens=2)
        for i, tokens in enumerate(list(oracle.rejected))
    ]
    oracle._texts = {asked.sequence_id: [*asked.prompt_ids, 3, 3] for asked in again}
    play(engine, again, {asked.sequence_id: Answer(asked) for asked in again})
