"""Drafts what plain decoding is known to have said, with mistakes: long drafts, mostly right.

Only a proof can have such a drafter. It tests what other drafters reach seldom: many accepted
tokens at every temperature, and a rejection anywhere in a draft.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest


class EchoDrafter:
    """See Drafter. `answers` has the known answer's ids by sequence id.

    Each draft token is wrong with probability `error_rate`, drawn from (`seed`, sequence,
    position).
    """

    name = "echo"
    is_free = False
    max_draft_length = 16

    def __init__(
        self, answers: Mapping[str, Sequence[int]], error_rate: float, seed: int, vocab_size: int
    ) -> None:
        self._answers = answers
        self._error_rate = error_rate
        self._seed = seed
        self._vocab_size = vocab_size

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._draft(request) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        return [[] for _ in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        pass

    def _draft(self, request: DraftRequest) -> Draft:
        base = len(request.tokens)
        source = random.Random(f"{self._seed} {request.sequence_id} {base}")
        start = base - request.num_prompt_tokens
        known = self._answers[request.sequence_id][start : start + request.draft_length]
        tokens = tuple(
            source.randrange(self._vocab_size) if source.random() < self._error_rate else token
            for token in known
        )
        return Draft(base, tokens)
