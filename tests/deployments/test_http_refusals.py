"""Requests that are refused: by name, in OpenAI's shape, before any work is done."""

from __future__ import annotations

from typing import Any

import pytest
from http_calls import CHAT, COMPLETIONS, USER, Json, error_of, run

from cluster.settings import Limits

WRONG_CHAT: list[tuple[Json, str]] = [
    ({"foo": 1}, "foo"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [USER | {"name": "bob"}]}, "messages[0].name"),
    ({"messages": [USER, {"role": "user", "content": [{"type": "image_url"}]}]}, "messages[1].*"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].*"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": 2.5}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": 1.1}, "min_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"400": 1}}, "logit_bias"),
    ({"logit_bias": {"5": "x"}}, "logit_bias[5]"),
    ({"n": 0}, "n"),
    ({"n": 33}, "n"),
    ({"stop": ""}, "stop[0]"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ["a", "x" * 1001]}, "stop[1]"),
    ({"stop": [1]}, "stop[0]"),
    ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.0}, "seed"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 600}, "max_tokens"),
    ({"max_tokens": None, "max_completion_tokens": 600}, "max_completion_tokens"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    ({"min_tokens": 10}, "min_tokens"),
    ({"ignore_eos": 1}, "ignore_eos"),
    ({"logprobs": 3}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_k": 10**400}, "top_k"),
    ({"min_tokens": -(10**400)}, "min_tokens"),
    ({"logit_bias": {"05": 1.0}}, "logit_bias"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"x": True}}, "stream_options.x"),
    ({"user": 5}, "user"),
    ({"hedgerow": {"drafter": "x"}}, "hedgerow.drafter"),
    ({"hedgerow": {"drafters": "x"}}, "hedgerow.drafters"),
    ({"hedgerow": {"max_draft_length": -1}}, "hedgerow.max_draft_length"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"store": True}, "store"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
]


@pytest.mark.parametrize(("wrong", "parameter"), WRONG_CHAT, ids=lambda value: str(value)[:60])
def test_each_wrong_parameter_is_refused_by_name(serving: Any, wrong: Json, parameter: str) -> None:
    async def test() -> None:
        async with serving() as server:
            body = {"messages": [USER], "max_tokens": 9} | wrong
            error = await error_of(server, CHAT, 400, **body)
            assert error["param"].startswith(parameter.removesuffix("*")), error
            assert error["type"] == "invalid_request_error"
            assert not server.engine.seen

    run(test)


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", [1]]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [999]}, "prompt"),
        ({"prompt": "x" * 600}, "prompt"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"messages": [USER]}, "messages"),
        ({"max_completion_tokens": 3}, "max_completion_tokens"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_completions_are_refused_by_name(serving: Any, wrong: Json, parameter: str) -> None:
    async def test() -> None:
        async with serving() as server:
            error = await error_of(server, COMPLETIONS, 400, **({"prompt": "a"} | wrong))
            assert error["param"] == parameter

    run(test)


def test_a_prompt_too_long_is_a_context_length_error(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            error = await error_of(server, COMPLETIONS, 400, prompt="x" * 600)
            assert error["code"] == "context_length_exceeded"

    run(test)


def test_limits_of_the_configuration_bound_a_request(serving: Any) -> None:
    async def test() -> None:
        limits = Limits(max_body_bytes=1024, max_prompt_tokens=4, max_choices=2)
        async with serving(limits) as server:
            error = await error_of(server, COMPLETIONS, 413, prompt="x" * 2000)
            assert error["code"] == "request_too_large"
            assert (await error_of(server, COMPLETIONS, 400, prompt="xxxxx"))["param"] == "prompt"
            assert (await error_of(server, COMPLETIONS, 400, prompt="x", n=3))["param"] == "n"

    run(test)


@pytest.mark.parametrize(
    ("path", "body"),
    [(COMPLETIONS, {"prompt": ["a"] * 3}), (CHAT, {"messages": [USER], "n": 3})],
)
def test_too_many_choices_are_refused_before_any_text_is_tokenized(
    serving: Any, monkeypatch: pytest.MonkeyPatch, path: str, body: Json
) -> None:
    async def test() -> None:
        async with serving(Limits(max_choices=2)) as server:
            monkeypatch.setattr(server.gateway.text, "encode", None)
            assert (await error_of(server, path, 400, **body))["param"] == "n"

    run(test)


def test_an_unknown_model_is_not_found(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            error = await error_of(server, CHAT, 404, model="gpt", messages=[USER])
            assert (error["code"], error["param"]) == ("model_not_found", "model")
            answer = await server.client.get("/v1/models/gpt")
            assert answer.json()["error"]["code"] == "model_not_found"

    run(test)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", CHAT, 405), ("POST", "/health", 405)],
)
def test_wrong_routes_have_openai_s_shape(
    serving: Any, method: str, path: str, status: int
) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.client.request(method, path)
            assert answer.status_code == status
            assert answer.json()["error"]["type"] == "invalid_request_error"

    run(test)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "x" * 90_000, "prompt": "a"},
        {"prompt": "a", "x" * 90_000: 1},
        {"prompt": "a", "hedgerow": {"x" * 90_000: 1}},
        {"prompt": "a", "logit_bias": {"x" * 90_000: 1}},
        {"prompt": "a", "logit_bias": {"1" * 5_000: 1}},
        {"prompt": "a", "top_k": 10**4_000},
        {"prompt": "a", "max_tokens": 10**4_000},
    ],
    ids=lambda body: ", ".join(body)[:40],
)
def test_an_error_is_short_however_long_the_request_s_words(serving: Any, body: Json) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.post(COMPLETIONS, **body)
            assert 400 <= answer.status_code < 500
            assert len(answer.text) < 2000
            assert "set_int_max_str_digits" not in answer.text

    run(test)


def test_a_prompt_s_length_is_checked_before_its_ids(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            error = await error_of(server, COMPLETIONS, 400, prompt=[999] * 600)
            assert error["code"] == "context_length_exceeded"

    run(test)
