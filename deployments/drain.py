"""`python -m deployments.drain SECONDS`: empties this machine's Ray node before its pod ends.

A preStop hook. Serve starts the node's replicas elsewhere first, and lets their streams end.
Returns when the node has ended itself, being empty, or when the time is over.
"""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

_NODE_PROCESS = "raylet"
_LOOK_EVERY_S = 0.5


def main(arguments: list[str]) -> int:
    """Exit status 0: the node is empty, 1: it is not, or could not be asked, 2: usage."""
    if len(arguments) != 1 or not arguments[0].isdecimal():
        print("usage: python -m deployments.drain SECONDS", file=sys.stderr)
        return 2
    deadline_s = time.monotonic() + int(arguments[0])
    if subprocess.run(drain_command(arguments[0]), stdin=subprocess.DEVNULL).returncode:
        return 1
    while _is_up():
        if time.monotonic() > deadline_s:
            return 1
        time.sleep(_LOOK_EVERY_S)
    return 0


def drain_command(seconds: str) -> list[str]:
    """Of Ray; without more arguments it is for the node of this machine."""
    return [
        *("ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"),
        *("--reason-message", "the pod ends", "--deadline-remaining-seconds", seconds),
    ]


def _is_up() -> bool:
    return any(process.info["name"] == _NODE_PROCESS for process in psutil.process_iter(["name"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
