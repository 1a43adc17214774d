"""The Lua scripts of a folder, each an atomic operation of the store beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis


class LuaScripts:
    """`client` gives the client to use now, which may be another each time; see RedisConnection."""

    def __init__(self, client: Callable[[], Redis], folder: Path, names: Sequence[str]) -> None:
        self._client = client
        self._texts = {name: (folder / f"{name}.lua").read_text("utf-8") for name in names}
        self._scripts: tuple[Redis | None, dict[str, Any]] = None, {}

    def run(self, name: str, keys: Sequence[str], *arguments: str | int | float) -> Any:
        """The script's answer; raises what redis-py and the connection raise."""
        client = self._client()
        owner, scripts = self._scripts
        if owner is not client:
            scripts = {each: client.register_script(text) for each, text in self._texts.items()}
            self._scripts = client, scripts
        return scripts[name](keys, arguments)
