"""Everything that this process started, directly or not, and its end: by process, never by name."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from contextlib import suppress

import psutil

_PR_SET_CHILD_SUBREAPER = 36


class Descendants:
    """Knows the processes below this one, also those whose parent ended before them.

    On Linux such orphans come back to this process; elsewhere `note` must see them in time.
    """

    def __init__(self) -> None:
        self._known: set[psutil.Process] = set()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def note(self) -> None:
        """Remembers who is there now. A `Process` is known by pid and start time."""
        self._known.update(psutil.Process().children(recursive=True))

    def end(self, grace_s: float) -> None:
        """Asks all of them to end, then makes them, and waits until they have."""
        self.note()
        _each(self._known, psutil.Process.terminate)
        psutil.wait_procs(self._known, timeout=grace_s)
        self.note()
        _each(self._known, psutil.Process.kill)
        psutil.wait_procs(self._known, timeout=grace_s)


def _each(processes: Iterable[psutil.Process], act: object) -> None:
    assert callable(act)
    for process in processes:
        with suppress(psutil.Error):
            act(process)
