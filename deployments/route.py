"""Which target a request goes to: the one of its conversation, or the next one after a failure.

Requests of one session go to one target, so that its prefix cache and its suffix drafter see the
whole conversation. Needs no Ray: what Serve's router asks is here, so that it can be tested.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

SUSPECTED_S = 30.0
MAX_CHOICES = 4096
_BEGINNING = 64  # tokens of a completion's prompt that stand for its session

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Route:
    """`session` is where the first attempt goes; each later one goes to the next target."""

    session: str = ""
    attempt: int = 0

    @property
    def session_id(self) -> str:
        """As Serve carries it."""
        return f"{self.session}#{self.attempt}" if self.session else ""

    @staticmethod
    def read(session_id: str) -> Route:
        session, mark, attempt = session_id.rpartition("#")
        return Route(session, int(attempt)) if mark else Route(session_id)


ANYWHERE = Route()


def session_of(tenant: str, beginning: Sequence[object]) -> str:
    """Equal for equal tenants and beginnings of a conversation; tells neither."""
    text = json.dumps([tenant, *beginning], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def beginning_of(prompt_ids: Sequence[int]) -> list[int]:
    return list(prompt_ids[:_BEGINNING])


class Suspicion:
    """Which targets did not answer lately, by what Serve's router says that it chose."""

    def __init__(self) -> None:
        self._chosen: OrderedDict[str, object] = OrderedDict()
        self._until_s: dict[object, float] = {}
        self.num_trusted = 0
        """Targets that are not suspected, when one was chosen last."""

    def chose(self, session_id: str, order: Sequence[object]) -> None:
        """The first of `order`, which has all there are."""
        self.num_trusted = sum(target not in self._until_s for target in order)
        self._chosen[session_id] = order[0]
        self._chosen.move_to_end(session_id)
        while len(self._chosen) > MAX_CHOICES:
            self._chosen.popitem(last=False)

    def note(self, session_id: str) -> None:
        """Whoever was chosen for this session did not answer."""
        target = self._chosen.get(session_id)
        if target is not None:
            self._until_s[target] = time.monotonic() + SUSPECTED_S

    def order(self, targets: Sequence[T]) -> list[T]:
        """Those under suspicion last; as they were otherwise."""
        now_s = time.monotonic()
        for target, until_s in list(self._until_s.items()):  # another thread may note one
            if until_s <= now_s:
                self._until_s.pop(target, None)
        return sorted(targets, key=lambda target: target in self._until_s)


def ranked(targets: Sequence[T], attempt: int) -> list[T]:
    """From the one whose turn it is at this attempt, round to the one before it."""
    first = attempt % len(targets) if targets else 0
    return [*targets[first:], *targets[:first]]


SUSPICION = Suspicion()
"""Of this process: Serve makes the routers of its handles itself, and shows them to nobody."""
