"""Everything that this process started, directly or not, and its end: by process, never by name."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import suppress

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


class Descendants:
    """Knows the processes below this one, also those whose parent ended before them.

    On Linux such orphans come back to this process; elsewhere `note` must see them in time.
    """

    _come_back = sys.platform == "linux"

    def __init__(self) -> None:
        self._known: set[psutil.Process] = set()
        if self._come_back:
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def note(self) -> None:
        """Remembers who is there now, where that cannot wait until the end: it takes a while."""
        if not self._come_back:
            self._look()

    def end(self, grace_s: float) -> None:
        """Asks all of them to end, then makes them, and waits until they have."""
        for act in (psutil.Process.terminate, psutil.Process.kill):
            self._look()
            for process in self._known:
                with suppress(psutil.Error):
                    act(process)
            self._wait(time.monotonic() + grace_s)

    def _look(self) -> None:
        """A `Process` is known by pid and start time."""
        self._known.update(psutil.Process().children(recursive=True))

    def _wait(self, deadline_s: float) -> None:
        """Not by psutil.wait_procs: it waits in vain for orphans that it does not reap."""
        while any(map(_is_alive, self._known)) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        for process in self._known:
            with suppress(ChildProcessError):  # another's, and so its to reap
                os.waitpid(process.pid, os.WNOHANG)


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
