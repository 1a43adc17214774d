"""Chat completions of the running application, through OpenAI's own client: tokens and texts."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI
from openai_chat import END, MODEL, ask, stream, streamed_text, text_of


@pytest.fixture(scope="module")
def greedy(client: OpenAI) -> str:
    """What the model says at temperature 0, decoded plainly."""
    return text_of(ask(client, extra_body={"hedgerow": {"drafters": []}}))


def test_answer_has_openai_s_fields(client: OpenAI) -> None:
    answer = ask(client)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == MODEL
    assert answer.system_fingerprint
    assert answer.choices[0].message.role == "assistant"
    assert text_of(answer).strip()


def test_stream_joins_to_the_whole_answer(client: OpenAI, greedy: str) -> None:
    chunks = stream(client)
    assert streamed_text(chunks) == greedy
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "length"
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_length_is_bounded_by_either_name(client: OpenAI, name: str) -> None:
    answer = ask(client, **({"max_tokens": None} | {name: 5}))
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("streaming", [False, True])
def test_stop_string_across_tokens_cuts_the_text_before_it(
    client: OpenAI, greedy: str, streaming: bool
) -> None:
    middle = len(greedy) // 2
    stop = greedy[middle - 3 : middle + 4]
    before = greedy[: greedy.index(stop)]
    if streaming:
        chunks = stream(client, stop=stop)
        assert streamed_text(chunks) == before
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        answer = ask(client, stop=["\u2603 never", stop])
        assert text_of(answer) == before
        assert answer.choices[0].finish_reason == "stop"


def test_stop_string_that_never_completes_holds_nothing_back(client: OpenAI, greedy: str) -> None:
    assert streamed_text(stream(client, stop=greedy[-4:] + "\u2603")) == greedy


def test_usage_stops_where_the_text_stops(client: OpenAI, greedy: str) -> None:
    answer = ask(client, stop=greedy[4:8], logprobs=True)
    assert answer.usage is not None
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert answer.usage.completion_tokens == len(content) < 16


def test_end_token_stops_and_has_no_text(client: OpenAI) -> None:
    answer = ask(client, logit_bias={str(END): 100})
    assert answer.choices[0].finish_reason == "stop"
    assert text_of(answer) == ""


def test_ignoring_the_end_token_runs_to_the_length(client: OpenAI) -> None:
    extra = {"ignore_eos": True}
    answer = ask(client, logit_bias={str(END): 100}, max_tokens=4, extra_body=extra)
    assert answer.choices[0].finish_reason == "length"


def test_min_tokens_holds_the_end_token_off(client: OpenAI) -> None:
    answer = ask(client, logit_bias={str(END): 100}, extra_body={"min_tokens": 4})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "stop"


def test_stop_token_ids_stop(client: OpenAI) -> None:
    answer = ask(client, logit_bias={"28": 100}, extra_body={"stop_token_ids": [28]})
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1


@pytest.mark.parametrize(
    "narrow",
    [{"extra_body": {"top_k": 1}}, {"top_p": 1e-6}, {"extra_body": {"min_p": 1.0}}],
    ids=["top_k", "top_p", "min_p"],
)
def test_a_filter_that_leaves_one_token_is_greedy(
    client: OpenAI, greedy: str, narrow: dict[str, Any]
) -> None:
    assert text_of(ask(client, temperature=1.0, seed=3, **narrow)) == greedy


def test_a_seed_fixes_a_sampled_answer_and_another_seed_changes_it(client: OpenAI) -> None:
    texts = [text_of(ask(client, temperature=1.0, seed=seed)) for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]
    assert streamed_text(stream(client, temperature=1.0, seed=5)) == texts[0]


def test_without_a_seed_answers_differ(client: OpenAI) -> None:
    texts = {text_of(ask(client, temperature=1.5)) for _ in range(2)}
    assert len(texts) == 2


@pytest.mark.parametrize(
    "penalty",
    [
        {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0},
        {"extra_body": {"repetition_penalty": 1.8}},
    ],
    ids=lambda value: next(iter(value)),
)
def test_penalties_keep_the_model_from_repeating(client: OpenAI, penalty: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "Write the word bird again and again: bird bird bird"}]
    plain = text_of(ask(client, messages=messages, max_tokens=24))
    penalised = text_of(ask(client, messages=messages, max_tokens=24, **penalty))
    assert penalised != plain


def test_logit_bias_forbids_and_forces_tokens(client: OpenAI) -> None:
    first = ask(client, max_tokens=1, logprobs=True, top_logprobs=1)
    forced = ask(client, max_tokens=3, logit_bias={"28": 100})
    assert text_of(forced) == ",,,"
    assert first.choices[0].logprobs is not None


def test_log_probabilities_match_the_text_and_its_bytes(client: OpenAI, greedy: str) -> None:
    answer = ask(client, logprobs=True, top_logprobs=3)
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert b"".join(bytes(entry.bytes or []) for entry in content).decode() == greedy
    for entry in content:
        values = [top.logprob for top in entry.top_logprobs]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert entry.logprob == values[0] <= 0
        assert entry.top_logprobs[0].token == entry.token


def test_streamed_log_probabilities_equal_the_whole_ones(client: OpenAI) -> None:
    whole = ask(client, logprobs=True).choices[0].logprobs
    assert whole is not None
    assert whole.content is not None
    chunks = stream(client, logprobs=True)
    parts = [chunk.choices[0].logprobs for chunk in chunks]
    streamed = [entry for part in parts if part for entry in part.content or []]
    assert [e.token for e in streamed] == [e.token for e in whole.content]
    for one, other in zip(streamed, whole.content, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
