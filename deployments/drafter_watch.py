"""Follows the changes to drafters that the router keeps, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from cluster.drafter_changes import DrafterChanges

EVERY_S = 1.0

logger = logging.getLogger(__name__)


class ChangesReader(Protocol):
    def read(self) -> DrafterChanges | None:
        """The present document; None while nobody has it."""
        ...


class DrafterWatch:
    """Calls `follow` with every new version, one call at a time, until it is stopped.

    While nobody answers, nothing changes.
    """

    def __init__(
        self,
        changes: ChangesReader,
        follow: Callable[[DrafterChanges], None],
        every_s: float = EVERY_S,
    ) -> None:
        self._changes = changes
        self._every_s = every_s
        self._follow = follow
        self._version = 0
        self._stopping = threading.Event()
        threading.Thread(target=self._run, name="drafter changes", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            changes = self._changes.read()
            if changes is not None and changes.version != self._version:
                try:
                    self._follow(changes)
                except Exception:
                    logger.exception("changes to drafters cannot be applied")
                self._version = changes.version
            self._stopping.wait(self._every_s)
