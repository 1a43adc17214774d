"""What a host's drafters say, as messages for the targets."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.messages import Drafted, Scored
from engine.drafters.drafter import Drafter, DraftRequest, ScoreRequest


def drafted(drafter: Drafter, requests: Sequence[DraftRequest]) -> list[Drafted]:
    """What a free drafter offers is seen before it is chosen where it runs, and not from afar: what
    it lacks of the tokens asked for, it has stopped before."""
    return [
        Drafted(
            draft.base_length,
            tuple(map(int, draft.tokens)),
            draft.match_length,
            draft.streak,
            draft.is_stopped or (drafter.is_free and len(draft.tokens) < request.draft_length),
        )
        for draft, request in zip(drafter.draft(requests), requests, strict=True)
    ]


def scored(drafter: Drafter, requests: Sequence[ScoreRequest]) -> list[list[Scored]]:
    """Of a free drafter as of one that has stopped: see `drafted`."""
    longest = drafter.max_draft_length if drafter.is_free else 0
    return [
        [
            Scored(o.base_length, max(o.num_offered, longest), o.accept_length, o.censored)
            for o in outcomes
        ]
        for outcomes in drafter.score(requests)
    ]
