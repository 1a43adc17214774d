"""Asks a server's /v1/completions for the jobs of a cell, streamed, each with its prompt's ids."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.peers.answers import Answer
from benchmarks.peers.workload import Cell, Job

TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url` is the API's base; `extra` goes into every body."""

    url: str
    model: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, job: Job) -> dict[str, Any]:
        """Greedy, and of a fixed length."""
        return {
            "model": self.model,
            "prompt": list(job.prompt_ids),
            "max_tokens": job.num_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra,
        }


def ask(endpoint: Endpoint, cell: Cell) -> list[Answer]:
    """In the order of the jobs; never raises for a server's failure."""
    return asyncio.run(_ask_all(endpoint, cell))


async def _ask_all(endpoint: Endpoint, cell: Cell) -> list[Answer]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)  # some servers hang up themselves
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    answers = [Answer(job.domain) for job in cell.jobs]
    waiting, start_s = deque(range(len(cell.jobs))), time.monotonic()
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=endpoint.headers
    ) as session:

        async def ask_one(i: int) -> None:
            await _ask(session, endpoint, cell.jobs[i], answers[i], start_s)

        async def work() -> None:
            while waiting:
                i = waiting.popleft()
                answers[i].started_s = time.monotonic() - start_s
                await ask_one(i)

        async def arrive(i: int, at_s: float) -> None:
            answers[i].started_s = at_s
            await asyncio.sleep(max(0.0, start_s + at_s - time.monotonic()))
            await ask_one(i)

        if cell.arrivals_s:
            await asyncio.gather(*(arrive(i, at) for i, at in enumerate(cell.arrivals_s)))
        else:
            await asyncio.gather(*(work() for _ in range(cell.num_streams)))
    return answers


async def _ask(
    session: aiohttp.ClientSession, endpoint: Endpoint, job: Job, answer: Answer, start_s: float
) -> None:
    due_s = start_s + answer.started_s
    try:
        async with session.post(
            f"{endpoint.url}/completions", json=endpoint.body(job), read_bufsize=2**16
        ) as reply:
            if reply.status == 200:
                await _read(reply, answer, due_s)
            else:
                answer.failure = f"{reply.status}: {(await reply.text())[:200]}"
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
        answer.failure = f"{type(error).__name__}: {error}"
    answer.total_s = time.monotonic() - due_s
    if not answer.failure and answer.num_tokens != job.num_tokens:
        answer.failure = f"{answer.num_tokens} tokens instead of {job.num_tokens}"


async def _read(reply: aiohttp.ClientResponse, answer: Answer, due_s: float) -> None:
    answer.failure = "the stream ended early"
    async for line in reply.content:
        text = line.strip()
        if not text.startswith(b"data:"):
            continue
        if text == b"data: [DONE]":
            answer.failure = ""
            return
        chunk = json.loads(text.removeprefix(b"data:"))
        if "error" in chunk:
            answer.failure = str(chunk["error"])[:200]
            return
        if said := "".join(choice.get("text") or "" for choice in chunk.get("choices") or ()):
            answer.text += said
            answer.first_s = answer.first_s or time.monotonic() - due_s
        note(answer, chunk)


def note(answer: Answer, chunk: Mapping[str, Any]) -> None:
    """Tokens and rounds, as far as the chunk tells them: ours in `usage`, llama.cpp in `timings`.

    A token that no draft brought was a round's own.
    """
    usage, timings = chunk.get("usage") or {}, chunk.get("timings") or {}
    answer.num_tokens = usage.get("completion_tokens", answer.num_tokens)
    if "speculation" in usage:
        answer.num_rounds = usage["speculation"]["num_rounds"]
    if "predicted_n" in timings:
        answer.num_tokens = timings["predicted_n"]
        answer.num_rounds = timings["predicted_n"] - timings.get("draft_n_accepted", 0)


def spread_rounds(answers: Sequence[Answer], num_accepted: int) -> None:
    """Of a server that counts accepted tokens for all answers together."""
    good = [answer for answer in answers if not answer.failure]
    for i, answer in enumerate(good):
        share = (num_accepted * (i + 1)) // len(good) - (num_accepted * i) // len(good)
        answer.num_rounds = max(1, answer.num_tokens - share)


def metric(page: str, name: str) -> float:
    """The sum over labels of a metric of a Prometheus page."""
    lines = (line for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
