"""Server-sent events that never end cleanly unless everything was sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.answer import error_event
from deployments.errors import ApiError, ClientGoneError, internal

_LOG = logging.getLogger("hedgerow.http")
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class StreamCutError(Exception):
    """Raised into the server after an error event, so that it cuts the connection."""


class SlowClientError(Exception):
    """The client did not take what was sent."""


class Source(Protocol):
    """What events are made of."""

    async def aclose(self) -> None: ...


class EventStream(Response):
    """Sends `events`, then closes their `source`, which watches for the client's disconnect.

    A server that feels the client's flow control lets a send wait for it: `timeout_s` at most,
    then the connection is cut.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        source: Source,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> None:
        super().__init__()
        self._events = events
        self._source = source
        self._limits = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*_HEADERS, *self._limits]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for written in self._events:
                await self._write(send, written)
            await self._write(send, b"", is_last=True)
        except ClientGoneError:
            return
        except SlowClientError as error:  # it would not take an error event either
            _LOG.warning("a stream was cut: its client took nothing for %g s", self._timeout_s)
            raise StreamCutError from error
        except Exception as error:
            _LOG.error("a stream failed: %s", type(error).__name__)
            with suppress(SlowClientError):
                shown = error if isinstance(error, ApiError) else internal()
                await self._write(send, error_event(shown))
            raise StreamCutError from error
        finally:
            await self._events.aclose()
            await self._source.aclose()

    async def _write(self, send: Send, body: bytes, is_last: bool = False) -> None:
        message = {"type": "http.response.body", "body": body, "more_body": not is_last}
        try:
            await asyncio.wait_for(send(message), self._timeout_s)
        except TimeoutError as error:
            raise SlowClientError from error
