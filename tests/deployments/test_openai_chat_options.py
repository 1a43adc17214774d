"""Choices, usage, speculation and messages of chat completions, through OpenAI's own client."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI
from openai_chat import END, TOPIC, ask, stream, streamed_text, text_of

TRAINED = [f"{domain}-head" for domain in ("code", "math", "chat", "edit")]
TRAINED += [f"{domain}-model" for domain in ("code", "math", "chat")]
DRAFTERS = ["far", "lookup", "suffix", *TRAINED]


def test_choices_are_numbered_differ_and_follow_the_seed(client: OpenAI) -> None:
    first = ask(client, n=3, temperature=1.0, seed=7)
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    texts = [text_of(first, i) for i in range(3)]
    assert len(set(texts)) == 3
    chunks = stream(client, n=3, temperature=1.0, seed=7)
    assert [streamed_text(chunks, i) for i in range(3)] == texts
    assert text_of(ask(client, temperature=1.0, seed=7)) == texts[0]


def test_choices_count_their_prompt_once(client: OpenAI) -> None:
    one, three = ask(client, max_tokens=2).usage, ask(client, max_tokens=2, n=3).usage
    assert one is not None
    assert three is not None
    assert three.prompt_tokens == one.prompt_tokens
    assert three.completion_tokens == 6


def test_usage_chunk_is_sent_when_asked_for(client: OpenAI) -> None:
    chunks = stream(client, stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16


def test_usage_adds_up_and_reports_speculation(client: OpenAI) -> None:
    usage = ask(client, extra_body={"hedgerow": {"selector": "eager"}}, max_tokens=32).usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    details = usage.completion_tokens_details
    assert details is not None
    speculation = usage.model_extra["speculation"] if usage.model_extra else {}
    accepted = speculation["num_accepted_tokens"]
    assert details.accepted_prediction_tokens == accepted
    assert details.rejected_prediction_tokens == speculation["num_draft_tokens"] - accepted
    assert speculation["num_rounds"] + accepted == usage.completion_tokens
    length = usage.completion_tokens / speculation["num_rounds"]
    assert speculation["mean_acceptance_length"] == pytest.approx(length)


def test_a_prompt_seen_before_is_cached(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "The quick brown fox jumps over it. " * 8}]
    for _ in range(2):
        usage = ask(client, messages=messages, max_tokens=2).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens or 0) > 0


@pytest.mark.parametrize(
    "narrow",
    [
        {"drafters": []},
        {"drafters": ["lookup"]},
        {"drafters": ["suffix"]},
        {"drafters": TRAINED},
        {"max_draft_length": 0},
        {"max_draft_length": 2},
        {"selector": "plain"},
        {"selector": "eager"},
        {"selector": "rule"},
        {"selector": "ucbspec"},
        {"selector": "exp3spec"},
        {"selector": "hedge"},
        {"selector": "normalhedge"},
        {},
        {"selector": "eager", "drafters": ["lookup"], "max_draft_length": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_narrowing_speculation_changes_no_word(
    client: OpenAI, narrow: dict[str, Any], temperature: float
) -> None:
    sentence = "one two three four one two three four one two"
    parameters: dict[str, Any] = {
        "messages": [{"role": "user", "content": f"Repeat: {sentence}"}],
        "temperature": temperature,
        "seed": 1,
    }
    plain = ask(client, extra_body={"hedgerow": {"drafters": []}}, **parameters)
    narrowed = ask(client, extra_body={"hedgerow": narrow}, **parameters)
    assert text_of(narrowed) == text_of(plain)
    assert narrowed.usage is not None
    used = (narrowed.usage.model_extra or {})["speculation"]
    assert set(used["per_drafter"]) <= set(narrow.get("drafters", DRAFTERS))
    if narrow.get("max_draft_length") == 0 or narrow.get("selector") == "plain":
        assert used["num_draft_tokens"] == 0


def test_developer_is_system_and_parts_are_text(client: OpenAI) -> None:
    plain = [{"role": "system", "content": "Be brief."}, *TOPIC]
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": TOPIC[0]["content"]}]},
    ]
    assert text_of(ask(client, messages=plain)) == text_of(ask(client, messages=parts))


def test_a_conversation_goes_on_with_the_client_s_own_message(client: OpenAI) -> None:
    answer = ask(client)
    again = {"role": "user", "content": "Why?"}
    messages = [*TOPIC, answer.choices[0].message.model_dump(), again]
    assert text_of(ask(client, messages=messages))


def test_unicode_goes_in_and_comes_out_whole(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Repeat this: 😀 世界 Grüße 😀 世界 Grüße"}]
    chunks = stream(client, messages=messages, max_tokens=32, logit_bias={str(END): -100})
    whole = text_of(ask(client, messages=messages, max_tokens=32, logit_bias={str(END): -100}))
    assert streamed_text(chunks) == whole
    assert all("\ufffd" not in (c.choices[0].delta.content or "") for c in chunks[:-2])


def test_all_parameters_work_together(client: OpenAI) -> None:
    parameters: dict[str, Any] = {
        "n": 2,
        "temperature": 0.9,
        "top_p": 0.95,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.2,
        "logit_bias": {"28": -5},
        "seed": 11,
        "stop": ["\u2603", "never ever"],
        "logprobs": True,
        "top_logprobs": 2,
        "user": "someone",
        "extra_body": {
            "top_k": 50,
            "min_p": 0.01,
            "repetition_penalty": 1.05,
            "min_tokens": 4,
            "ignore_eos": True,
            "stop_token_ids": [0],
            "hedgerow": {"drafters": ["lookup", "suffix"], "max_draft_length": 6},
        },
    }
    whole = ask(client, **parameters)
    chunks = stream(client, stream_options={"include_usage": True}, **parameters)
    for index in range(2):
        assert streamed_text(chunks, index) == text_of(whole, index)
