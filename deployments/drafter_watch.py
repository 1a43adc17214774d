"""Follows the changes to drafters that the router keeps, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from cluster.drafter_changes import DrafterChanges

EVERY_S = 1.0
_FIRST_PAUSE_S = 2.0  # before what was refused is tried again; twice as long each time
_MAX_PAUSE_S = 120.0

logger = logging.getLogger(__name__)


class ChangesReader(Protocol):
    def read(self) -> DrafterChanges | None:
        """The present document; None while nobody has it."""
        ...


class DrafterWatch:
    """Calls `follow` with every new version, one call at a time, until it is stopped.

    `follow` says whether all went well. If not, or if it raises, it is called again with the same
    version, after a pause that grows. While nobody answers, nothing changes.
    """

    def __init__(
        self,
        changes: ChangesReader,
        follow: Callable[[DrafterChanges], bool],
        every_s: float = EVERY_S,
        first_pause_s: float = _FIRST_PAUSE_S,
    ) -> None:
        self._changes = changes
        self._every_s = every_s
        self._first_pause_s = first_pause_s
        self._follow = follow
        self._version = 0
        self._pause_s = first_pause_s
        self._try_again_at_s: float | None = None
        self._stopping = threading.Event()
        threading.Thread(target=self._run, name="drafter changes", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            changes = self._changes.read()
            if changes is not None and self._is_due(changes.version):
                self._apply(changes)
            self._stopping.wait(self._every_s)

    def _is_due(self, version: int) -> bool:
        if version != self._version:
            self._pause_s = self._first_pause_s
            return True
        return self._try_again_at_s is not None and time.monotonic() >= self._try_again_at_s

    def _apply(self, changes: DrafterChanges) -> None:
        self._version, self._try_again_at_s = changes.version, None
        try:
            is_done = self._follow(changes)
        except Exception:
            logger.exception("changes to drafters cannot be applied")
            is_done = False
        if not is_done:
            self._try_again_at_s = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
