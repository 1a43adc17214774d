"""How tests of the HTTP application ask: paths, bodies, errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
USER = {"role": "user", "content": "hi"}
Json = dict[str, Any]


async def error_of(server: Any, path: str, status: int, **body: object) -> Json:
    answer = await server.post(path, **body)
    assert answer.status_code == status, answer.text
    error: Json = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 60)

    asyncio.run(bounded())
