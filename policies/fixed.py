"""One arm for every sequence and round: the baseline, and what a request that names an arm gets."""

from __future__ import annotations

from collections.abc import Sequence

from policies.selector import PLAIN, Context, Decision


def bounded(drafter: str | None, draft_length: int, context: Context) -> Decision:
    """The arm as far as `context` allows it; plain decoding if the drafter is masked."""
    if drafter is None:
        return PLAIN
    length = min(draft_length, context.draft_lengths.get(drafter, 0))
    return Decision(drafter, length) if length > 0 else PLAIN


class FixedSelector:
    """Always `draft_length` tokens from `drafter`, or the fewer that it can give; None is plain."""

    def __init__(self, drafter: str | None = None, draft_length: int = 0) -> None:
        if draft_length < 0:
            raise ValueError(f"draft_length: {draft_length} is not allowed; expected >= 0")
        self._drafter = drafter
        self._draft_length = draft_length

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        return [bounded(self._drafter, self._draft_length, context) for context in contexts]
