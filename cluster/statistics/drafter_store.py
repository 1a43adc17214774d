"""Where the changes to drafters are kept: one document by model, replaced by version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from redis import Redis, RedisError, ResponseError

from cluster.drafter_changes import DrafterChanges
from cluster.statistics.keys import drafters_key
from cluster.statistics.store import StoreError


class DrafterStore:
    """`client` decodes responses and never retries; see `cluster.statistics.client`.

    Everything raises StoreError if the server cannot be reached.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        script = Path(__file__).with_name("drafters.lua").read_text("utf-8")
        self._replace = client.register_script(script)

    def read(self, model: str) -> DrafterChanges:
        """No changes, of version 0, where nothing was stored or it is damaged."""
        try:
            found: Any = self._client.hgetall(drafters_key(model))
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise StoreError(str(error)) from error
            found = {}
        except (RedisError, OSError) as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error
        return _parsed(found)

    def replace(self, model: str, before: int, after: DrafterChanges) -> bool:
        """Whether `after` is kept now: only if version `before` was there."""
        arguments: list[str | int] = [before, after.version, after.model_dump_json()]
        try:
            return bool(self._replace([drafters_key(model)], arguments))
        except (RedisError, OSError) as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error


def _parsed(found: Mapping[str, str]) -> DrafterChanges:
    """Damaged content counts as none, of the version that it has, so that it can be replaced."""
    version = found.get("version", "0")
    number = int(version) if version.isdecimal() else 0
    try:
        changes = DrafterChanges.model_validate_json(found.get("content", "{}"))
    except ValidationError:
        changes = DrafterChanges()
    return changes.model_copy(update={"version": number})
