"""A secret in a file of this user alone, made at the first call."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


class KeptSecretError(Exception):
    """The file cannot be trusted; says why, and not what is in it."""


def kept_secret(path: Path, new: str, min_length: int) -> str:
    """What the file holds, `new` if there is none yet.

    Of several processes that make it at once, one wins and all get the winner's.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        draft.touch(mode=0o600, exist_ok=False)
        try:
            draft.write_text(new)
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    status = path.stat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise KeptSecretError(f"{path}: others may read it; chmod 600 it, or remove it")
    secret = path.read_text().strip()
    if len(secret) < min_length:
        raise KeptSecretError(f"{path}: too short; remove it, and another is made")
    return secret
