"""One client's request to any OpenAI-compatible server, and what became of it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from benchmarks.load_plan import Request

PATH = "/chat/completions"
SLOW_READ_S = 0.2
SLOW_BUFFER = 1024  # bytes
REFUSALS = (429, 503)
Outcome = Literal["answered", "refused", "failed", "left"]


@dataclass(slots=True)
class Record:
    """Times are seconds; `first_s` and `total_s` since the request was due. -1 has no meaning.

    `num_rounds` and the numbers of draft tokens are there where the server tells them.
    """

    tenant: str
    domain: str
    at_s: float
    outcome: Outcome = "failed"
    status: int = 0
    reason: str = ""
    has_retry_after: bool = False
    first_s: float = -1.0
    total_s: float = -1.0
    num_tokens: int = 0
    num_rounds: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0

    @property
    def per_token_s(self) -> float | None:
        """From the first token to the last."""
        if self.outcome != "answered" or self.first_s < 0 or self.num_tokens < 2:
            return None
        return (self.total_s - self.first_s) / (self.num_tokens - 1)


class LoadClient:
    """`url` is the API's base, as in http://127.0.0.1:8000/v1; `session` bounds no connections."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: str) -> None:
        self._session = session
        self._url = url.rstrip("/") + PATH
        self._model = model

    async def ask(self, request: Request, due_s: float) -> Record:
        """Never raises but to be cancelled: a failure is in the record. `due_s` is monotonic."""
        record = Record(request.tenant.name, request.prompt.domain, request.at_s)
        try:
            await self._ask(request, record, due_s)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            record.reason = type(error).__name__
        record.total_s = time.monotonic() - due_s
        return record

    async def _ask(self, request: Request, record: Record, due_s: float) -> None:
        buffer = SLOW_BUFFER if request.is_slow else 2**16
        async with self._session.post(
            self._url,
            json=self._body(request),
            headers={"Authorization": f"Bearer {request.tenant.key}"},
            read_bufsize=buffer,
        ) as answer:
            record.status = answer.status
            record.has_retry_after = "Retry-After" in answer.headers
            if answer.status != 200:
                record.outcome = "refused" if answer.status in REFUSALS else "failed"
                record.reason = str(answer.status)
                await answer.read()
            elif request.streams:
                await self._read_stream(answer, request, record, due_s)
            else:
                _note_usage(record, await answer.json())
                record.outcome = "answered"

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": request.prompt.text}],
            "max_tokens": request.tenant.max_tokens,
            "temperature": request.tenant.temperature,
        }
        if request.streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    async def _read_stream(
        self, answer: aiohttp.ClientResponse, request: Request, record: Record, due_s: float
    ) -> None:
        num_chunks, record.reason = 0, "the stream ended early"
        async for line in answer.content:
            text = line.strip()
            if not text.startswith(b"data:"):
                continue
            if text == b"data: [DONE]":
                record.outcome, record.reason = "answered", ""
                continue
            chunk = json.loads(text.removeprefix(b"data:"))
            if "error" in chunk:
                record.reason = str(chunk["error"].get("code"))
                return
            if _has_text(chunk):
                num_chunks += 1
                if record.first_s < 0:
                    record.first_s = time.monotonic() - due_s
            _note_usage(record, chunk)
            if num_chunks == request.hangs_up_after:
                record.outcome, record.reason = "left", ""
                return
            if request.is_slow:
                await asyncio.sleep(SLOW_READ_S)
        record.num_tokens = record.num_tokens or num_chunks  # of a server that tells no usage


def _has_text(chunk: dict[str, Any]) -> bool:
    choices = chunk.get("choices") or [{}]
    return bool((choices[0].get("delta") or {}).get("content"))


def _note_usage(record: Record, answer: dict[str, Any]) -> None:
    usage = answer.get("usage") or {}
    record.num_tokens = usage.get("completion_tokens", record.num_tokens)
    told = usage.get("speculation") or {}
    for name in ("num_rounds", "num_draft_tokens", "num_accepted_tokens"):
        setattr(record, name, told.get(name, getattr(record, name)))
