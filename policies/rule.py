"""Lookup when it matches, else one other arm: ArcticInference's hybrid, the baseline to beat.

It learns nothing and knows no costs.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.fixed import bounded
from policies.selector import PLAIN, Context, Decision


class RuleSelector:
    """The drafter of `lookups` with the longest match that offers something, else `otherwise`.

    Among equal matches the first of `lookups` wins. Drafts have at most `draft_length` tokens, or
    what `otherwise` says for its own.
    """

    def __init__(
        self, lookups: Sequence[str], draft_length: int, otherwise: Decision = PLAIN
    ) -> None:
        if draft_length < 1:
            raise ValueError(f"draft_length: {draft_length} is not allowed; expected >= 1")
        self._lookups = tuple(lookups)
        self._draft_length = draft_length
        self._otherwise = otherwise

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        return [self._choose(context) for context in contexts]

    def _choose(self, context: Context) -> Decision:
        offering = [name for name in self._lookups if context.draft_lengths.get(name, 0) > 0]
        if not offering:
            return bounded(self._otherwise.drafter, self._otherwise.draft_length, context)
        longest = max(offering, key=lambda name: context.match_lengths.get(name, 0))
        return bounded(longest, self._draft_length, context)
