"""Usage in Redis (6.2 and newer) or Valkey: a hash for each day, kept for over a year."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis, RedisError

from cluster.limits.limiter import LimiterError
from cluster.limits.usage import Account, Entry, Usage
from cluster.lua_scripts import LuaScripts
from cluster.redis_connection import NoServerError

PREFIX = "hedgerow:usage:{1}:"
_KEPT_MS = 400 * 86400 * 1000
_NUM_FIELDS = len(fields(Usage))
T = TypeVar("T")


class RedisUsage:
    """`client` gives the client to use now; see `cluster.redis_connection`."""

    def __init__(self, client: Callable[[], Redis]) -> None:
        self._client = client
        self._scripts = LuaScripts(client, Path(__file__).parent, ["usage"])

    def write(self, writer: str, entries: Iterable[Entry]) -> None:
        by_day: dict[str, list[str | int]] = {}
        for entry in entries:
            numbers = " ".join(map(str, astuple(entry.total)))
            field = f"{entry.account.tenant}:{writer}"
            by_day.setdefault(entry.account.day, []).extend((field, entry.sequence, numbers))
        for day, arguments in by_day.items():
            self._run("usage", [f"{PREFIX}{day}"], _KEPT_MS, *arguments)

    def read(self, days: Iterable[str]) -> dict[Account, Usage]:
        found: dict[Account, Usage] = {}
        for day in days:
            for field, text in self._fields(f"{PREFIX}{day}").items():
                account, used = Account(day, field.partition(":")[0]), _usage(text)
                found[account] = found.get(account, Usage()) + used
        return found

    def _fields(self, key: str) -> dict[str, str]:
        answer: Any = _guarded(lambda: self._client().hgetall(key))
        return dict(answer)

    def _run(self, script: str, keys: list[str], *arguments: str | int) -> None:
        _guarded(lambda: self._scripts.run(script, keys, *arguments))


def _guarded(call: Callable[[], T]) -> T:
    try:
        return call()
    except (RedisError, OSError, NoServerError) as error:
        raise LimiterError(f"{type(error).__name__}: {error}") from error


def _usage(text: str) -> Usage:
    """What cannot be read counts as nothing; a newer version's further numbers are passed over."""
    numbers = text.split()[1 : _NUM_FIELDS + 1]
    if len(numbers) != _NUM_FIELDS or not all(each.isdecimal() for each in numbers):
        return Usage()
    return Usage(*map(int, numbers))
