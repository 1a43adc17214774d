"""Refusals of the running application, as OpenAI's own client reports them."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

MODEL = "smollm2-135m-instruct"
USER = [{"role": "user", "content": "hi"}]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 3}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"n": 1000}, "n"),
    ({"max_tokens": 10**6}, "max_tokens"),
    ({"presence_penalty": -3}, "presence_penalty"),
    ({"logit_bias": {"60000": 1}}, "logit_bias"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"extra_body": {"best": 1}}, "best"),
    ({"extra_body": {"top_k": -1}}, "top_k"),
    ({"extra_body": {"hedgerow": {"drafters": ["nobody"]}}}, "hedgerow.drafters"),
    ({"extra_body": {"hedgerow": {"selector": "nobody"}}}, "hedgerow.selector"),
    ({"extra_body": {"hedgerow": {"draft": 1}}}, "hedgerow.draft"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": "word " * 9000}]}, "messages"),
]


@pytest.mark.parametrize(("wrong", "parameter"), REFUSED, ids=lambda value: str(value)[:50])
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_parameter_is_a_bad_request_that_names_it(
    client: OpenAI, wrong: dict[str, Any], parameter: str, stream: bool
) -> None:
    given = {"messages": USER, "model": MODEL, "stream": stream, **wrong}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**given)
    assert caught.value.param == parameter
    assert caught.value.type == "invalid_request_error"


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-4", prompt="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_a_prompt_that_does_not_fit_says_so(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=[5] * 20000)
    assert caught.value.code == "context_length_exceeded"


def test_routes_and_bodies_outside_of_the_api(app: Any) -> None:
    for method, path, body, status in (
        ("GET", "/v1/embeddings", b"", 404),
        ("GET", "/v1/completions", b"", 405),
        ("POST", "/v1/completions", b"{", 400),
        ("POST", "/v1/completions", b'{"temperature": NaN}', 400),
        ("POST", "/v1/completions", b" " * 2_000_000, 413),
    ):
        answer = httpx.request(method, app.url + path, content=body, headers=app.login, timeout=30)
        assert answer.status_code == status, path
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_health_is_ok_and_metrics_are_vllm_s_names(app: Any) -> None:
    assert httpx.get(f"{app.url}/health", timeout=30).json() == {"status": "ok"}
    text = httpx.get(f"{app.url}/metrics", headers=app.login, timeout=30).text
    for name in (
        "num_requests_running",
        "generation_tokens_total",
        "spec_decode_num_accepted_tokens_total",
        "time_to_first_token_seconds_bucket",
    ):
        assert f"hedgerow:{name}" in text
