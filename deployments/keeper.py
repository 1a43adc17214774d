"""`python -m deployments.keeper FOLDER COMMAND...`: runs a command that must not outlive its owner.

Standard input is a pipe from the owner: a byte in it, or its end by the owner's death, ends
everything that the command started. Of a dead owner, FOLDER is removed too.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys

from deployments.descendants import Descendants

GRACE_S = 10.0
_POLL_S = 1.0


def main() -> int:
    folder, *command = sys.argv[1:]
    pipe = sys.stdin.fileno()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ignore)
    descendants = Descendants()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while process.poll() is None and not select.select([pipe], [], [], _POLL_S)[0]:
        descendants.note()
    has_ended = process.returncode is not None
    descendants.end(GRACE_S)
    if not has_ended and not os.read(pipe, 1):
        shutil.rmtree(folder, ignore_errors=True)
    return process.returncode or 0


def _ignore(number: int, frame: object) -> None:
    """The owner hears signals too, and says so. Children do not inherit a handler."""


if __name__ == "__main__":
    sys.exit(main())
