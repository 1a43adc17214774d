"""Ends a stream of work when its client hangs up or its time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TypeVar

from starlette.requests import Request

from deployments.errors import ApiError, ClientGoneError

T = TypeVar("T")


async def watched(
    items: AsyncGenerator[T, None], request: Request, timeout_s: float
) -> AsyncGenerator[T, None]:
    """`items`, closed at once when the client is gone (ClientGoneError) or late (ApiError 504).

    The request's body must have been read: the next message is the disconnect.
    """
    deadline_s = time.monotonic() + timeout_s
    gone = asyncio.ensure_future(_until_disconnected(request))
    try:
        while True:
            step = asyncio.ensure_future(anext(items))
            try:
                remaining_s = max(0.0, deadline_s - time.monotonic())
                await asyncio.wait(
                    {step, gone}, timeout=remaining_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not step.done():
                    raise ClientGoneError if gone.done() else _late(timeout_s)
            finally:
                await _settled(step)
            try:
                item = step.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        await _settled(gone)
        await items.aclose()


def _late(timeout_s: float) -> ApiError:
    return ApiError(504, f"the answer took longer than {timeout_s:g} s", None, "timeout")


async def _until_disconnected(request: Request) -> None:
    """Serve's proxy may tell it by an error instead of a message."""
    with suppress(Exception):
        while (await request.receive())["type"] != "http.disconnect":
            pass


async def _settled(task: asyncio.Future[T]) -> None:
    """Cancels what is not done, and waits for its end, however it ends."""
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
