"""The secret that the processes of one cluster share: from the environment, else from a file.

It is never in Serve's arguments, which the dashboard shows, and never in a log.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cluster.embedded_redis import state_folder

VARIABLE = "HEDGEROW_TRANSPORT_SECRET"
MIN_LENGTH = 32  # characters: keys are derived from it, and anybody may try to guess it offline
MAX_SECRETS = 2  # the new and the old one, while they change


class TransportSecretError(Exception):
    """The secret cannot be used; says why, and not what it is."""


def read_secrets(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The secret to use, and maybe another that is accepted: `HEDGEROW_TRANSPORT_SECRET=new,old`.

    Without the variable, one that is kept in the state folder and made at the first call.
    """
    given = environ.get(VARIABLE)
    if given is None:
        return (_kept_secret(state_folder(environ) / "transport-secret"),)
    found = tuple(each.strip() for each in given.split(","))
    if len(found) > MAX_SECRETS or any(len(each) < MIN_LENGTH for each in found):
        raise TransportSecretError(
            f"{VARIABLE}: expected at most {MAX_SECRETS} secrets with a comma between them, "
            f"each of at least {MIN_LENGTH} characters"
        )
    return found


def _kept_secret(path: Path) -> str:
    """Of several processes that make it at once, one wins and all get the winner's."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        draft.touch(mode=0o600, exist_ok=False)
        try:
            draft.write_text(secrets.token_hex(32))
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    status = path.stat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise TransportSecretError(f"{path}: others may read it; chmod 600 it, or remove it")
    secret = path.read_text().strip()
    if len(secret) < MIN_LENGTH:
        raise TransportSecretError(f"{path}: too short; remove it, and another is made")
    return secret
