"""The accept rule of drafter-invariant decoding, whole.

The target's token at a position does not depend on who drafted, so a draft token is accepted
exactly when it equals that token; the first one that differs is replaced by it and ends the round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def verify(draft: Sequence[int], target_token: Callable[[int], int]) -> list[int]:
    """Emitted tokens of one round: the accepted part of `draft`, and one of the target's own.

    `target_token(i)` is the target's token after the first i draft tokens; it is asked in order,
    and never behind a rejected token.
    """
    emitted = []
    for i in range(len(draft) + 1):
        emitted.append(target_token(i))
        if i < len(draft) and emitted[i] != draft[i]:
            break
    return emitted
