"""The secret that the processes of one cluster share: from the environment, else from a file.

It is never in Serve's arguments, which the dashboard shows, and never in a log.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from cluster.embedded_redis import state_folder
from cluster.kept_secret import KeptSecretError, kept_secret

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
        path = state_folder(environ) / "transport-secret"
        try:
            return (kept_secret(path, secrets.token_hex(32), MIN_LENGTH),)
        except KeptSecretError as error:
            raise TransportSecretError(str(error)) from error
    found = tuple(each.strip() for each in given.split(","))
    if len(found) > MAX_SECRETS or any(len(each) < MIN_LENGTH for each in found):
        raise TransportSecretError(
            f"{VARIABLE}: expected at most {MAX_SECRETS} secrets with a comma between them, "
            f"each of at least {MIN_LENGTH} characters"
        )
    return found
