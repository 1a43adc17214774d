"""Reads a request's body: bounded before it is parsed, and strictly JSON.

NaN, infinities, numbers too large to be finite and doubled keys are refused.
"""

from __future__ import annotations

import asyncio
import json
import math
import re

from starlette.requests import ClientDisconnect, Request

from cluster.settings import Limits
from deployments.errors import ApiError, ClientGoneError, invalid

MAX_DEPTH = 32
BODY_TIMEOUT_S = 60.0
Json = dict[str, object]

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # never backtracks: linear time
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BRACKET = re.compile(r"[\[\]{}]")


async def read_json(request: Request, limits: Limits) -> Json:
    """Raises ApiError for a body that is too large, too slow or not a JSON object."""
    timeout_s = min(BODY_TIMEOUT_S, limits.request_timeout_s)
    try:
        body = await asyncio.wait_for(_read_bytes(request, limits.max_body_bytes), timeout_s)
    except TimeoutError as error:
        message = f"the body took longer than {timeout_s:g} s to arrive"
        raise ApiError(408, message, None, "timeout") from error
    return parse_json(body)


async def _read_bytes(request: Request, max_body_bytes: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_body_bytes:
                message = f"the body is larger than {max_body_bytes} bytes"
                raise ApiError(413, message, None, "request_too_large")
    except ClientDisconnect as error:
        raise ClientGoneError from error
    return bytes(body)


def parse_json(body: bytes) -> Json:
    try:
        text = body.decode("utf-8")
        _check_depth(text)
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_without_doubles,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise invalid(None, f"the body is not JSON: {_reason(error)}", "invalid_json") from error
    if not isinstance(value, dict):
        raise invalid(None, "the body is not a JSON object", "invalid_json")
    return value


def _reason(error: Exception) -> str:
    """Never the body itself, which a decoding error's text would show."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, UnicodeEncodeError):
        return "a string has half of a surrogate pair"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return "a number is too large" if "digits" in str(error) else str(error)


def _check_depth(text: str) -> None:
    """Counts brackets outside of strings, without parsing."""
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _without_doubles(pairs: list[tuple[str, object]]) -> Json:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is given twice")
    return value
