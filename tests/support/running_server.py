"""The HTTP application on a fake engine, behind a real server on the loopback, in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.responses import PlainTextResponse


class RunningServer:
    """`url` and `port` are open."""

    def __init__(self, port: int, server: Any) -> None:
        self.port = port
        self.server = server
        self.url = f"http://127.0.0.1:{port}"

    @property
    def login(self) -> str:
        """The value of an operator's Authorization."""
        value: str = self.server.client.headers["Authorization"]
        return value


def as_behind_serve(app: Any) -> Any:
    """Serve's proxy answers for its own health."""

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") == "/-/healthz":
            await PlainTextResponse("success")(scope, receive, send)
        else:
            await app(scope, receive, send)

    return proxy


@contextmanager
def running_server(serving: Any, **options: Any) -> Iterator[RunningServer]:
    """`serving` is the fixture, `options` are its own."""
    started: list[RunningServer] = []
    is_ready, stopping = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    async def serve() -> None:
        async with serving(**options) as server:
            config = uvicorn.Config(
                as_behind_serve(server.app), port=0, log_level="critical", lifespan="off"
            )
            http = uvicorn.Server(config)
            running = asyncio.ensure_future(http.serve())
            while not http.started:
                await asyncio.sleep(0.005)
            port = http.servers[0].sockets[0].getsockname()[1]
            started.append(RunningServer(port, server))
            is_ready.set()
            while not stopping.is_set():
                await asyncio.sleep(0.02)
            http.should_exit = True
            await running

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            is_ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    is_ready.wait(30)
    try:
        if failures:
            raise failures[0]
        yield started[0]
    finally:
        stopping.set()
        thread.join(30)
