"""Answers over HTTP that lose their target: the same response, or an error that says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from http_calls import run
from lossy_targets import SOON

from cluster.settings import IngressSettings, Resume
from deployments.refusal import Refusal, RefusedError
from deployments.route import ANYWHERE, Route


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_whole_response_is_the_one_of_an_undisturbed_target(
    serving: Any, path: str, stream: bool
) -> None:
    body: dict[str, Any] = {"max_tokens": 40, "n": 2, "stream": stream, "seed": 1}
    body |= {"messages": [{"role": "user", "content": "hi"}], "logprobs": True}
    if path == "/v1/completions":
        body = {**body, "prompt": "hi", "logprobs": 2}
        del body["messages"]
    if stream:
        body["stream_options"] = {"include_usage": True}

    async def answer(faults: Iterator[int]) -> object:
        async with serving() as server:
            target = server.target
            whole = target.generate

            async def broken(requests: Any, route: Route = ANYWHERE) -> Any:
                num_left = next(faults, 10**9)
                async for emissions in whole(requests, route):
                    for emission in emissions:
                        if not num_left:
                            raise ConnectionError("the actor died")
                        num_left -= 1
                        yield [emission]

            target.generate = broken
            server.gateway.apply(IngressSettings(resume=SOON))
            found: httpx.Response = await server.post(path, **body)
            assert found.status_code == 200, found.text
            lines = found.text.splitlines() if stream else [f"data: {found.text}"]
            data = [line.removeprefix("data: ") for line in lines if line]
            bodies = [without_identity(json.loads(each)) for each in data if each != "[DONE]"]
            return sorted(bodies, key=choice_index)

    async def test() -> None:
        assert await answer(iter([3, 2, 0])) == await answer(iter([]))

    run(test)


def choice_index(body: dict[str, Any]) -> int:
    """Choices may take turns differently; each one's chunks are in order."""
    return int(body["choices"][0]["index"]) if body["choices"] else -1


def without_identity(body: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from call to call, and what speculation did."""
    kept = {key: value for key, value in body.items() if key not in ("id", "created")}
    if kept.get("usage"):
        volatile = ("speculation", "completion_tokens_details")
        kept["usage"] = {k: v for k, v in kept["usage"].items() if k not in volatile}
    return kept


def test_an_answer_that_cannot_go_on_ends_in_an_error_event(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            whole = server.target.generate

            async def broken(requests: Any, route: Route = ANYWHERE) -> Any:
                async for emissions in whole(requests, route):
                    yield emissions[:1]
                    if emissions:
                        raise ConnectionError("the actor died")

            server.target.generate = broken
            server.gateway.apply(IngressSettings(resume=Resume(max_losses=1)))
            events = await server.events("/v1/completions", prompt="hi", max_tokens=60)
            assert "error" in json.loads(events[-1])
            assert "[DONE]" not in events
            answer = await server.post("/v1/completions", prompt="hi", max_tokens=60)
            assert answer.status_code == 500

    run(test)


def test_a_target_that_refuses_to_go_on_says_why(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            whole, refusal = server.target.generate, Refusal("invalid", "hedgerow.drafters", "gone")

            async def broken(requests: Any, route: Route = ANYWHERE) -> Any:
                if route.attempt:
                    raise RefusedError(refusal)
                async for emissions in whole(requests, route):
                    yield emissions[:1]
                    if emissions:
                        raise ConnectionError("the actor died")

            server.target.generate = broken
            server.gateway.apply(IngressSettings(resume=SOON))
            answer = await server.post("/v1/completions", prompt="hi", max_tokens=60)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "hedgerow.drafters"

    run(test)
