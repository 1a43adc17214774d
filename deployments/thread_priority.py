"""Who gives way on a machine with fewer cores than busy threads."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

NICENESS = 10


def give_way() -> None:
    """From now on this thread, and those that it starts, let others run first.

    For threads that compute without a pause. Those that answer clients need little time, and at
    once: under a flood a refusal took half to a fifth of the time. Elsewhere than on Linux, where
    threads have a priority of their own, nothing happens.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # somebody has made it nicer
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
