"""A selector that changes its mind: what drafts, and how much, is of no consequence to a text."""

from __future__ import annotations

import random
from collections.abc import Sequence

from policies.selector import PLAIN, Context, Decision


class Switching:
    """Another drafter and another draft length every round, also in mid-sequence."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._rng = random.Random(0)

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        return [
            self._one([name for name in self._names if name in context.draft_lengths])
            for context in contexts
        ]

    def _one(self, names: Sequence[str]) -> Decision:
        if not names or self._rng.random() < 0.2:
            return PLAIN
        return Decision(self._rng.choice(names), self._rng.randint(0, 16))
