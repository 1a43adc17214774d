"""Speculative output equals plain output, id for id, whatever drafts and however long.

Plain output is made one request at a time; everything else must reproduce it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from plain_answers import OPTIONS, assert_same, plain_answer, text_of
from tiny_models import (
    BFLOAT16,
    EOS,
    FAMILIES,
    FLOAT16_WEIGHTS,
    LetterText,
    ids_of,
    run_all,
    tiny_engine,
    tiny_model,
)
from tiny_requests import DRAFTERS, TRAINED, drafter, request

from engine.request import GenerationRequest, SamplingParams
from policies.fixed import FixedSelector


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


@pytest.mark.parametrize("family", [BFLOAT16, FLOAT16_WEIGHTS])
@pytest.mark.parametrize("name", ["prompt_lookup", "suffix", "model"])
def test_fewer_bits_say_what_plain_decoding_says(name: str, family: str) -> None:
    engine = tiny_engine([drafter(name)], family=family)
    engine.use_selectors(FixedSelector(name, 7), {})
    requests = [request(600 + i, (0.0, 0.7, 1.0)[i % 3], max_tokens=40) for i in range(9)]
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, family)
    assert sum(use.num_accepted_tokens for use in engine.counters().per_drafter.values()) > 0


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
