"""What tenants used, by day: each replica's totals, of which the newest counts."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Protocol

MAX_ENTRIES = 500
"""In one call, so that no script holds the server for long."""


@dataclass(frozen=True, slots=True)
class Usage:
    """`num_refused` are requests over a limit; the others ran, if not always to the end."""

    num_requests: int = 0
    num_refused: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_completion_tokens: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(operator.add, astuple(self), astuple(other)))

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_completion_tokens


@dataclass(frozen=True, slots=True)
class Account:
    """One tenant's of one day, as in `2026-11-21`."""

    day: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A writer's total of an account; the one with the highest sequence number holds."""

    account: Account
    sequence: int
    total: Usage


class UsageStore(Protocol):
    """Every method raises LimiterError, and only that, if it cannot be reached."""

    def write(self, writer: str, entries: Iterable[Entry]) -> None:
        """At most MAX_ENTRIES; again, or late, it changes nothing."""
        ...

    def read(self, days: Iterable[str]) -> dict[Account, Usage]:
        """The sums of all writers' totals."""
        ...


class UsageBook:
    """A writer's own totals, and which of them the store has still to hear of. Pure."""

    def __init__(self) -> None:
        self._totals: dict[Account, Usage] = {}
        self._changed: dict[Account, None] = {}
        self._sequence = 0

    def add(self, account: Account, used: Usage) -> None:
        self._totals[account] = self._totals.get(account, Usage()) + used
        self._changed[account] = None

    def entries(self) -> list[Entry]:
        """What to write now."""
        self._sequence += 1
        changed = list(self._changed)[:MAX_ENTRIES]
        return [Entry(each, self._sequence, self._totals[each]) for each in changed]

    def acknowledge(self, entries: Iterable[Entry]) -> None:
        """The store has these; an account that grew meanwhile is written again."""
        for entry in entries:
            if self._totals[entry.account] == entry.total:
                self._changed.pop(entry.account, None)

    def repeat(self, day: str) -> None:
        """Writes all of this day again, in case the store lost it, and forgets older days."""
        for account in list(self._totals):
            if account.day >= day:
                self._changed[account] = None
            elif account not in self._changed:
                del self._totals[account]


class MemoryUsage:
    """Usage in this process: for one process without Redis, and the reference for the script."""

    def __init__(self) -> None:
        self._totals: dict[tuple[Account, str], tuple[int, Usage]] = {}

    def write(self, writer: str, entries: Iterable[Entry]) -> None:
        for entry in entries:
            before, _ = self._totals.get((entry.account, writer), (0, Usage()))
            if entry.sequence > before:
                self._totals[entry.account, writer] = entry.sequence, entry.total

    def read(self, days: Iterable[str]) -> dict[Account, Usage]:
        wanted, found = set(days), dict[Account, Usage]()
        for (account, _), (_, total) in self._totals.items():
            if account.day in wanted:
                found[account] = found.get(account, Usage()) + total
        return found
