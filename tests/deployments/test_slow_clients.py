"""Clients that read slowly, or not at all: what waits for them is bounded, and then they go."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from http_calls import run

from cluster.settings import IngressSettings, Resume
from deployments.sse import StreamCutError

BODY = {"model": "tiny", "prompt": "hi", "max_tokens": 300, "stream": True}


@dataclass
class Reader:
    """A client behind a server with flow control: takes `num_taken` writes, then waits."""

    num_taken: int
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    waits: asyncio.Event = field(default_factory=asyncio.Event)
    writes: list[bytes] = field(default_factory=list)
    is_asked: bool = False

    async def send(self, message: Any) -> None:
        if message["type"] != "http.response.body":
            return
        if len(self.writes) >= self.num_taken and not self.goes_on.is_set():
            self.waits.set()
            await self.goes_on.wait()
        self.writes.append(message["body"])

    async def receive(self) -> Any:
        if self.is_asked:
            await asyncio.Event().wait()
        self.is_asked = True
        return {"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}

    def text(self) -> str:
        lines = b"".join(self.writes).decode().split("\n\n")
        data = [line.removeprefix("data: ") for line in lines if line]
        assert data[-1] == "[DONE]"
        return "".join(
            choice["text"] for each in data[:-1] for choice in json.loads(each)["choices"]
        )


def ask(server: Any, reader: Reader) -> asyncio.Future[None]:
    key = server.client.headers["authorization"].encode()
    headers = [(b"content-type", b"application/json"), (b"authorization", key)]
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "headers": headers,
    }
    scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
    app: FastAPI = server.app
    return asyncio.ensure_future(app(scope, reader.receive, reader.send))


async def until_idle(server: Any) -> None:
    while await server.target.thread.run(lambda: server.engine.has_work):
        pass


def test_decoding_stops_for_a_client_that_does_not_read_and_goes_on_when_it_does(
    serving: Any,
) -> None:
    async def test() -> None:
        async with serving(seconds_per_round=0.002) as server:
            quick = Reader(10**9)
            await ask(server, quick)
            server.gateway.apply(IngressSettings(resume=Resume(max_buffered_tokens=30)))
            slow = Reader(3)
            answer = ask(server, slow)
            await slow.waits.wait()
            await until_idle(server)
            request = server.engine.seen[-1]
            assert request.sequence_id in server.engine.cancelled
            assert len(slow.writes) == 3
            slow.goes_on.set()
            await answer
            assert slow.text() == quick.text()
            assert len(server.engine.seen) >= 3

    run(test)


def test_a_client_that_takes_nothing_is_cut_off(serving: Any) -> None:
    async def test() -> None:
        async with serving(seconds_per_round=0.002) as server:
            resume = Resume(max_buffered_tokens=30, slow_client_timeout_s=0.05)
            server.gateway.apply(IngressSettings(resume=resume))
            stuck = Reader(3)
            with pytest.raises(StreamCutError):
                await ask(server, stuck)
            await until_idle(server)
            assert len(stuck.writes) == 3

    run(test)


def test_one_that_does_not_read_holds_up_nobody_else(serving: Any) -> None:
    async def test() -> None:
        async with serving(seconds_per_round=0.002) as server:
            server.gateway.apply(IngressSettings(resume=Resume(max_buffered_tokens=30)))
            stuck = [Reader(2) for _ in range(6)]
            answers = [ask(server, each) for each in stuck]
            for each in stuck:
                await each.waits.wait()
            await until_idle(server)
            quick = [Reader(10**9) for _ in range(8)]  # the engine's whole capacity
            await asyncio.gather(*(ask(server, each) for each in quick))
            for each in stuck:
                each.goes_on.set()
            await asyncio.gather(*answers)
            assert {each.text() for each in (*stuck, *quick)} == {quick[0].text()}

    run(test)
