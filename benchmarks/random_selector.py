"""Another arm for every sequence and round, at random: drafters change in mid-sequence."""

from __future__ import annotations

import random
from collections.abc import Sequence

from policies.selector import PLAIN, Context, Decision


class RandomSelector:
    """Any drafter that may draft, any length that it can give; plain decoding now and then."""

    def __init__(self, seed: int, plain_rate: float = 0.1) -> None:
        self._source = random.Random(seed)
        self._plain_rate = plain_rate

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        return [self._choose(context) for context in contexts]

    def _choose(self, context: Context) -> Decision:
        names = sorted(context.draft_lengths)
        if not names or self._source.random() < self._plain_rate:
            return PLAIN
        name = self._source.choice(names)
        return Decision(name, self._source.randint(1, context.draft_lengths[name]))
