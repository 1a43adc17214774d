"""Runs an exchange's steps in a thread, at intervals that no two processes share for long."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from cluster.statistics.exchange import ExchangeCounters

logger = logging.getLogger(__name__)

BUSY_SHARE = 0.2
"""Of the time at most: if steps take long, as with many tenants or a server under load, there are
fewer of them. A single long step, such as the first, makes no long pause."""


class Stepped(Protocol):
    """An exchange, of counts or of what learners learn."""

    @property
    def counters(self) -> ExchangeCounters: ...

    def step(self) -> bool: ...

    def finish(self) -> bool: ...


def pause_between_steps_s(interval_s: float, last_s: float, step_s: float) -> float:
    """After a step that took `step_s`, and one before it that took `last_s`."""
    return max(interval_s, min(last_s, step_s) * (1 / BUSY_SHARE - 1))


class ExchangeThread:
    """A context manager: leaving it sends what is left, bounded by the store's timeouts."""

    def __init__(self, exchange: Stepped, interval_s: float = 0.25) -> None:
        self._exchange = exchange
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="statistics", daemon=True)

    def __enter__(self) -> ExchangeThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        generator = random.Random()
        is_well, last_s = True, 0.0
        while not self._stopping.is_set():
            start_s = time.monotonic()
            is_well = self._guarded(self._exchange.step, is_well)
            step_s = time.monotonic() - start_s
            pause_s = pause_between_steps_s(self._interval_s, last_s, step_s)
            self._stopping.wait(pause_s * generator.uniform(0.8, 1.2))
            last_s = step_s
        self._guarded(self._exchange.finish, is_well)

    def _guarded(self, work: Callable[[], bool], was_well: bool) -> bool:
        """Whether it went well; of failures in a row only the first is told."""
        error: str | None = None
        try:
            if work():
                return True
            error = self._exchange.counters.last_error
        except Exception as unexpected:
            error = f"{type(unexpected).__name__}: {unexpected}"
        if was_well:
            logger.warning("statistics: %s; counts wait", error)
        return False
