"""Speculative output equals plain output, id for id, whatever drafts and however long.

Plain output is made one request at a time; everything else must reproduce it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from switching import Switching
from tiny_models import (
    EOS,
    FAMILIES,
    VOCAB,
    LetterText,
    ids_of,
    run_all,
    tiny_engine,
    tiny_model,
)
from tiny_requests import DRAFTERS, TRAINED, drafter, request

from engine.drafters.drafter import Draft, Drafter, DraftRequest, Outcome, ScoreRequest
from engine.request import Emission, GenerationRequest, SamplingParams, SpeculationOptions
from policies.arms import Arms
from policies.cost_model import ArmPrices
from policies.exp3spec import Exp3Spec
from policies.fixed import FixedSelector
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Loss
from policies.normalhedge import NormalHedge
from policies.rule import RuleSelector
from policies.selector import Decision, Learner
from policies.survival import SurvivalSelector
from policies.ucbspec import UcbSpec

LEARNERS: dict[str, Callable[[], Any]] = {
    "survival": lambda: None,
    "ucbspec": UcbSpec,
    "exp3spec": Exp3Spec,
    "hedge": Hedge,
    "normalhedge": NormalHedge,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing else": {},
    "penalties": {
        "presence_penalty": 0.6,
        "frequency_penalty": 0.4,
        "repetition_penalty": 1.3,
    },
    "top_k, top_p, min_p": {"top_k": 12, "top_p": 0.9, "min_p": 0.02},
    "logit_bias": {"logit_bias": {5: 3.0, 7: -100.0, 11: 1.5}},
    "log-probs": {"logprobs": 3},
    "min_tokens": {"min_tokens": 9},
}


_plain_answers: dict[str, list[Emission]] = {}


def plain_answer(asked: GenerationRequest, family: str = "llama") -> list[Emission]:
    """What the request says alone, with no drafter, in an engine of its own; asked for once."""
    key = f"{family} {asked!r}"
    if key not in _plain_answers:
        _plain_answers[key] = run_all(tiny_engine(family=family), [asked])[asked.sequence_id]
    return _plain_answers[key]


def text_of(emissions: Sequence[Emission]) -> str:
    return "".join(emission.text for emission in emissions)


def assert_same(emissions: Sequence[Emission], asked: GenerationRequest, family: str) -> None:
    plain = plain_answer(asked, family)
    assert ids_of(emissions) == ids_of(plain)
    assert text_of(emissions) == text_of(plain)
    assert emissions[-1].finish_reason == plain[-1].finish_reason
    logprobs = [entry for emission in emissions for entry in emission.logprobs]
    assert logprobs == [entry for emission in plain for entry in emission.logprobs]


def check(
    requests: Sequence[GenerationRequest], name: str, draft_length: int, family: str = "llama"
) -> int:
    """Runs all requests together; returns how many draft tokens were accepted."""
    engine = tiny_engine([drafter(name, family=family) if name in TRAINED else drafter(name)],
                         family=family)  # fmt: skip
    engine.use_selectors(FixedSelector(name, draft_length), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, family)
    return sum(use.num_accepted_tokens for use in engine.counters().per_drafter.values())


@pytest.mark.parametrize("draft_length", range(17))
@pytest.mark.parametrize("name", DRAFTERS)
def test_every_drafter_and_draft_length_says_what_plain_decoding_says(
    name: str, draft_length: int
) -> None:
    requests = [
        request(i * 3 + j, temperature)
        for i in range(3)
        for j, temperature in enumerate((0.0, 0.7, 1.0))
    ]
    num_accepted = check(requests, name, draft_length)
    assert (num_accepted > 0) == (draft_length > 0)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("name", DRAFTERS)
def test_every_sampling_option_says_what_plain_decoding_says(
    name: str, options: dict[str, Any], temperature: float
) -> None:
    requests = [request(100 + i, temperature, **options) for i in range(5)]
    for draft_length in (3, 16):
        num_accepted = check(requests, name, draft_length)
        assert num_accepted > 0 or name not in TRAINED  # a lookup needs text that repeats


@pytest.mark.parametrize("name", DRAFTERS)
def test_stop_strings_and_end_tokens_inside_a_block_cut_where_plain_decoding_cuts(
    name: str,
) -> None:
    base = [request(200 + i, 0.7, ignore_eos=True) for i in range(6)]
    stops = [text_of(plain_answer(asked)) for asked in base]
    requests = [
        request(200 + i, 0.7, stop=(text[n : n + 2], text[n + 5]), ignore_eos=bool(n % 2))
        for i, text in enumerate(stops)
        for n in (i + 1,)
    ]
    assert check(requests, name, 16) > 0 or name not in TRAINED
    assert {plain_answer(asked)[-1].finish_reason for asked in requests} == {"stop"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_what_plain_decoding_says(family: str) -> None:
    requests = [
        request(300 + i, temperature, max_tokens=40)
        for i, temperature in enumerate((0.0, 0.7, 1.0, 0.0, 1.0))
    ]
    for name in DRAFTERS:
        assert check(requests, name, 7, family) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_greedy_equals_generate(family: str) -> None:
    for index in range(400, 412):
        asked = request(index, 0.0, max_tokens=30)
        model: Any = tiny_model(family)
        prompt = torch.tensor([asked.prompt_ids])
        with torch.inference_mode():
            ids = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=30,
                do_sample=False,
                eos_token_id=EOS,
                pad_token_id=0,
            )[0, prompt.shape[1] :].tolist()
        assert ids_of(plain_answer(asked, family)) == tuple(ids)


def mixed_requests(num_requests: int, first: int = 500) -> list[GenerationRequest]:
    """Every option at every temperature, several tenants, shared prompts."""
    rng = random.Random(first)
    return [
        request(
            first + i,
            rng.choice((0.0, 0.7, 1.0)),
            tenant=rng.choice("ab"),
            max_tokens=rng.randint(1, 40),
            **rng.choice(list(OPTIONS.values())),
        )
        for i in range(num_requests)
    ]


def all_drafters(**options: Any) -> list[Drafter]:
    lookups = [drafter("prompt_lookup"), drafter("suffix")]
    return [*lookups, *(drafter(name, **options) for name in TRAINED)]


def test_drafters_switched_in_mid_sequence_change_nothing() -> None:
    requests = mixed_requests(24)
    engine = tiny_engine(all_drafters())
    engine.use_selectors(Switching(DRAFTERS), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")
    assert set(engine.counters().per_drafter) == set(DRAFTERS)


@pytest.mark.parametrize("num_kv_tokens", [88, 120, 200])
def test_preemption_changes_nothing(num_kv_tokens: int) -> None:
    requests = mixed_requests(24)
    engine = tiny_engine(
        all_drafters(num_blocks=30), num_kv_tokens=num_kv_tokens, max_num_sequences=8
    )
    engine.use_selectors(Switching(DRAFTERS), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")
    assert engine.counters().num_preemptions > 0


@pytest.mark.parametrize("loss", ["tokens", "seconds"])
@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_says_what_plain_decoding_says(name: str, loss: Loss) -> None:
    requests = mixed_requests(16, first=1000)
    engine = tiny_engine(all_drafters(), num_kv_tokens=100, max_num_sequences=8)
    arms = Arms(dict.fromkeys(DRAFTERS, (1, 2, 4, 8)))
    prices, generator = ArmPrices(engine.costs, arms), np.random.default_rng(0)
    learner: Learner = SurvivalSelector(arms, prices, generator)
    if name != "survival":
        rule, learning = LEARNERS[name](), Learning(loss, "tenant")
        learner = LearningSelector(arms, rule, prices, generator, learning)
    engine.use_selectors(learner, {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")
    assert engine.counters().num_preemptions > 0
    assert sum(use.num_draft_tokens for use in engine.counters().per_drafter.values()) > 0


def test_prefix_cache_hits_change_nothing() -> None:
    requests = mixed_requests(16)
    engine = tiny_engine(all_drafters())
    engine.use_selectors(Switching(DRAFTERS), {})
    for _ in range(3):
        emissions = run_all(engine, requests)
        for asked in requests:
            assert_same(emissions[asked.sequence_id], asked, "llama")
    assert engine.counters().num_cached_tokens > 200


@pytest.mark.parametrize("max_batch_tokens", [16, 17, 48])
def test_chunked_prefill_and_batch_width_change_nothing(max_batch_tokens: int) -> None:
    requests = mixed_requests(16, first=600)
    engine = tiny_engine(all_drafters(), max_batch_tokens=max_batch_tokens)
    engine.use_selectors(Switching(DRAFTERS), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")


def test_a_request_that_narrows_its_drafters_gets_only_those() -> None:
    narrow = SpeculationOptions(drafters=("suffix",), max_draft_length=2)
    requests = [request(700 + i, 0.0, speculation=narrow) for i in range(4)]
    engine = tiny_engine(all_drafters())
    engine.use_selectors(RuleSelector(("prompt_lookup", "suffix"), 16, Decision("model", 4)), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        use = emissions[asked.sequence_id][-1].use
        assert set(use.per_drafter) <= {"suffix"}
        assert use.num_draft_tokens <= 2 * use.num_rounds
        assert ids_of(emissions[asked.sequence_id]) == ids_of(plain_answer(request(
            int(asked.sequence_id), 0.0)))  # fmt: skip


def test_a_request_that_joins_or_leaves_changes_no_other() -> None:
    requests = mixed_requests(12, first=800)
    engine = tiny_engine(all_drafters())
    engine.use_selectors(Switching(DRAFTERS), {})
    rng = random.Random(1)
    cancelled = {asked.sequence_id for asked in rng.sample(requests, 4)}
    emissions: dict[str, list[Emission]] = {asked.sequence_id: [] for asked in requests}
    waiting = list(requests)
    while waiting or engine.has_work:
        if waiting:
            engine.submit(waiting.pop())
        if cancelled and rng.random() < 0.3:
            engine.cancel(rng.choice(sorted(cancelled)))
        for emission in engine.step():
            emissions[emission.sequence_id].append(emission)
        engine.check_integrity()
    for asked in requests:
        got = ids_of(emissions[asked.sequence_id])
        expected = ids_of(plain_answer(asked))
        if asked.sequence_id in cancelled:
            assert got == expected[: len(got)]
        else:
            assert got == expected


class _Byzantine:
    """Lies in every way there is, and sometimes raises."""

    name = "byzantine"
    max_draft_length = 16

    def __init__(self, is_free: bool) -> None:
        self.is_free = is_free
        self._rng = random.Random(3)
        self._stale: dict[str, Draft] = {}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        if self._rng.random() < 0.1:
            raise RuntimeError("a drafter that breaks")
        drafts = [self._one(asked) for asked in requests]
        return drafts[:-1] if self._rng.random() < 0.1 else drafts

    def _one(self, asked: DraftRequest) -> Draft:
        kind = self._rng.randrange(6)
        base, length = len(asked.tokens), asked.draft_length
        high = VOCAB if kind < 3 else 10 * VOCAB
        tokens = [self._rng.randrange(-3 if kind == 4 else 0, high) for _ in range(length)]
        if kind == 5:
            tokens *= 3
        draft = Draft(base if kind != 2 else base - 1, tuple(tokens))
        late, self._stale[asked.sequence_id] = self._stale.get(asked.sequence_id, draft), draft
        return late if self._rng.random() < 0.2 else draft

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        raise RuntimeError("a drafter that breaks")

    def forget(self, sequence_ids: object) -> None:
        raise RuntimeError("a drafter that breaks")


@pytest.mark.parametrize("is_free", [True, False])
def test_a_byzantine_drafter_changes_no_token(is_free: bool) -> None:
    requests = mixed_requests(20, first=900)
    engine = tiny_engine([_Byzantine(is_free)])
    engine.use_selectors(FixedSelector("byzantine", 16), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")
    assert engine.counters().num_drafter_failures["byzantine"] > 0


def test_seeded_choices_differ_and_each_repeats() -> None:
    first, second = (
        GenerationRequest("x", (5, 6, 7), 30, SamplingParams(seed=seed), ignore_eos=True)
        for seed in (1, 2)
    )
    assert ids_of(plain_answer(first)) != ids_of(plain_answer(second))


def test_text_is_the_letters_of_the_ids() -> None:
    asked = request(7, 1.0, ignore_eos=True)
    emissions = plain_answer(asked)
    assert text_of(emissions) == LetterText().decode(ids_of(emissions))
