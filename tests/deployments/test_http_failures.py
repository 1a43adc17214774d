"""Targets that are away, full, late or broken, and clients that go: what is said, and left."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from http_calls import COMPLETIONS, error_of, run

from cluster.settings import Limits


def test_health_is_unavailable_until_the_target_answers(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with serving() as server:
            assert (await server.client.get("/health")).json() == {"status": "ok"}
            server.target.is_loaded = False
            assert (await server.client.get("/health")).status_code == 200  # a moment ago it was
            monkeypatch.setattr("deployments.gateway.CONTROL_TIMEOUT_S", 0.01)
            monkeypatch.setattr("deployments.gateway.READY_S", 0.0)
            answer = await server.client.get("/health")
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "not_ready"

    run(test)


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_is_said_at_once(serving: Any, stream: bool) -> None:
    async def test() -> None:
        async with serving(capacity=1) as server:
            error = await error_of(server, COMPLETIONS, 503, prompt="a", n=2, stream=stream)
            assert error["code"] == "overloaded"
            await server.target.thread.run(lambda: None)
            assert not server.engine.live

    run(test)


def test_a_failing_engine_answers_500_without_its_words(serving: Any) -> None:
    async def test() -> None:
        async with serving(fails_at_round=1) as server:
            error = await error_of(server, COMPLETIONS, 500, prompt="a")
            assert error["type"] == "server_error"
            assert "memory" not in error["message"]

    run(test)


def test_a_failing_stream_ends_with_an_error_event_and_never_with_done(serving: Any) -> None:
    async def test() -> None:
        async with serving(fails_at_round=3) as server:
            events = await server.events(COMPLETIONS, prompt="a", max_tokens=30)
            assert json.loads(events[-1])["error"]["type"] == "server_error"
            assert "[DONE]" not in events

    run(test)


def test_a_late_answer_is_stopped(serving: Any) -> None:
    async def test() -> None:
        async with serving(Limits(request_timeout_s=0.05), tokens_per_round=0) as server:
            error = await error_of(server, COMPLETIONS, 504, prompt="a")
            assert error["code"] == "timeout"
            await server.target.thread.run(lambda: None)
            assert not server.engine.live

    run(test)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_sequences(serving: Any, stream: bool) -> None:
    async def test() -> None:
        async with serving(tokens_per_round=0) as server:
            body = {"model": "tiny", "prompt": "a", "n": 2, "stream": stream}
            await hang_up(server, json.dumps(body).encode())
            await server.target.thread.run(lambda: None)
            assert len(server.engine.cancelled) == 2
            assert not server.engine.live

    run(test)


async def hang_up(server: Any, body: bytes) -> None:
    """One request whose client goes away as soon as the engine works on it."""

    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        for message in messages:
            return message
        while not server.engine.live:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        assert not message.get("body", b"").endswith(b"[DONE]\n\n")

    login = server.client.headers["Authorization"]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "POST",
        "path": COMPLETIONS,
        "raw_path": COMPLETIONS.encode(),
        "query_string": b"",
        "headers": [(b"authorization", login.encode())],
    }
    await server.app(scope, receive, send)
