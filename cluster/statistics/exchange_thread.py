"""Runs an exchange's steps in a thread, at intervals that no two processes share for long."""

from __future__ import annotations

import logging
import random
import threading

from cluster.statistics.exchange import Exchange

logger = logging.getLogger(__name__)


class ExchangeThread:
    """A context manager: leaving it sends what is left, bounded by the store's timeouts."""

    def __init__(self, exchange: Exchange, interval_s: float = 0.25) -> None:
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
        is_well = True
        while True:
            was_well, is_well = is_well, self._step()
            if was_well and not is_well:
                logger.warning("statistics: %s", self._exchange.counters.last_error)
            if self._stopping.wait(self._interval_s * generator.uniform(0.8, 1.2)):
                break
        self._exchange.finish()

    def _step(self) -> bool:
        try:
            return self._exchange.step()
        except Exception:
            logger.exception("statistics: a step failed; counts wait for the next")
            return False
