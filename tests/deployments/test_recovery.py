"""The running application loses its only target in the midst of answers: nobody notices."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import httpx

from benchmarks.chaos_load import Answer, Asked, ask, requests

MODEL = "smollm2-135m-instruct"
MAX_TOKENS = 40


async def ask_all(url: str, asked: list[Asked], stream: bool) -> list[Answer]:
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        return await asyncio.gather(*(ask(client, each, stream) for each in asked))


async def disturbed(app: Any, asked: list[Asked]) -> list[Answer]:
    """Half of them streams; the target ends when it has decoded for some rounds."""
    before = app.metric("generation_tokens_total")
    streams = asyncio.ensure_future(ask_all(app.url, asked, True))
    unary = asyncio.ensure_future(ask_all(app.url, asked, False))
    async with asyncio.timeout(300):
        while await asyncio.to_thread(app.metric, "generation_tokens_total") < before + 20:
            pass
    assert not any(each.done() for each in (streams, unary))
    os.kill(app.replica_pids()["Target"], signal.SIGKILL)
    return [*await streams, *await unary]


def test_no_answer_notices_that_the_target_was_killed(app: Any) -> None:
    asked = requests(MODEL, MAX_TOKENS)[:4]
    known = asyncio.run(ask_all(app.url, asked, False))
    assert all(answer.end == "whole" for answer in known), known
    pid = app.replica_pids()["Target"]
    found = asyncio.run(disturbed(app, asked))
    assert [answer.outcome(known[i % 4]) for i, answer in enumerate(found)] == ["exact"] * 8
    assert app.replica_pids()["Target"] != pid
