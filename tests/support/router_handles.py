"""Serve handles of routers in this process, that are away, silent or failing when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from deployments.router import Router

WAIT_S = 20.0


class Response:
    """`error` stands for what Ray raises; nothing comes before `gate` is open."""

    def __init__(
        self, call: Callable[[], object], error: Exception | None, gate: threading.Event
    ) -> None:
        self.call = call
        self.error = error
        self.gate = gate
        self.is_cancelled = False

    def result(self, timeout_s: float) -> object:
        assert self.gate.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return self.call()

    def cancel(self) -> None:
        self.is_cancelled = True


class Handle:
    """A Serve handle of a router in this process; `router` None is away."""

    def __init__(self, router: Router | None) -> None:
        self.router = router
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.responses: list[Response] = []

    @property
    def ask(self) -> Handle:
        return self

    def remote(self, *arguments: Any) -> Response:
        if self.router is None:
            raise RuntimeError("no replica")
        router = self.router
        self.responses.append(Response(lambda: router.ask(*arguments), self.error, self.gate))
        return self.responses[-1]
