"""A folder that appears whole or not at all, whatever ends the process that writes it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".staged-"


@contextmanager
def staged_folder(output: Path) -> Iterator[Path]:
    """A new folder beside `output`: becomes it if the block ends well, else is removed.

    An `output` that somebody else finished meanwhile is kept. Also removes what killed processes
    left there; a folder is locked as long as its process lives. Raises OSError.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with _locked(output.parent):  # a folder that is not locked yet must not be swept
        _sweep(output.parent)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=output.parent))
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
        try:
            os.rename(folder, output)
        except OSError:
            if not output.is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def _locked(folder: Path, flags: int = 0) -> Iterator[None]:
    """Raises BlockingIOError if `flags` say not to wait, and another process has the lock."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(lock)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError), _locked(folder, fcntl.LOCK_NB):
            shutil.rmtree(folder)
