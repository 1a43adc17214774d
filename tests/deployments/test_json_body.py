"""Bodies: strict JSON, that comes in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from http_calls import COMPLETIONS, run

from cluster.settings import Limits
from deployments.errors import ApiError
from deployments.json_body import parse_json


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": 1, "a": 2}',
        b"\xff",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 33 + b"]" * 33 + b"}",
        b"[" * 100_000,
        b'"' + b'\\"' * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_json(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_an_integer_that_python_does_not_read_is_too_large() -> None:
    with pytest.raises(ApiError, match="a number is too large"):
        parse_json(b'{"a": ' + b"9" * 5000 + b"}")


def test_a_body_that_does_not_come_is_not_waited_for(serving: Any) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b'{"model": "tiny", '
        await asyncio.Event().wait()

    async def test() -> None:
        async with serving(Limits(request_timeout_s=0.05)) as server:
            answer = await server.client.post(COMPLETIONS, content=half())
            assert answer.status_code == 408
            assert answer.json()["error"]["code"] == "timeout"

    run(test)


def test_brackets_inside_of_strings_are_no_nesting() -> None:
    text = "[" * 99 + '\\"{'
    assert parse_json(json.dumps({"a": text}).encode()) == {"a": text}
