"""A drafter behind a guard: nothing that it says is believed unchecked, and no failure leaves it.

Whatever is wrong with one draft, it becomes "no offer". A drafter that failed three times in a row
at one kind of call is masked, and tried again after a rest: that it scores well does not excuse
drafts that never come, nor does an empty one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from engine.counters import DrafterState
from engine.drafters.drafter import (
    Draft,
    Drafter,
    DraftRequest,
    Follower,
    Forecaster,
    Outcome,
    ScoreRequest,
)

_MAX_FAILURES = 3  # in a row, then the breaker opens
_REST_ROUNDS = 1000  # rounds until an open breaker lets one draft through

Kind = Literal["draft", "score", "forecast", "follow"]

logger = logging.getLogger(__name__)


class GuardedDrafter:
    """The calls of `Drafter`, none of which raises; `pass_round` counts the rounds.

    One that is not `is_enabled` is masked, and hears nothing.
    """

    def __init__(self, drafter: Drafter, vocab_size: int) -> None:
        self.name = drafter.name
        self.is_free = drafter.is_free
        self.max_draft_length = drafter.max_draft_length
        self.num_failures = 0
        self.is_enabled = True
        self._drafter = drafter
        self._follower = drafter if isinstance(drafter, Follower) else None
        self._vocab_size = vocab_size
        self._num_in_row: Counter[Kind] = Counter()
        self._num_rounds_to_rest = 0

    def guards(self, drafter: Drafter) -> bool:
        return self._drafter is drafter

    @property
    def follows(self) -> bool:
        """Whether it is elsewhere: hears of verified tokens ahead, and drafts meanwhile."""
        return self._follower is not None

    @property
    def state(self) -> DrafterState:
        if not self.is_enabled:
            return "disabled"
        has_failed = max(self._num_in_row.values(), default=0) >= _MAX_FAILURES
        if has_failed and self._num_rounds_to_rest > 0:
            return "resting"
        is_away = self._follower is not None and self._follower.is_away
        return "away" if is_away else "ready"

    @property
    def is_masked(self) -> bool:
        return self.state != "ready"

    def pass_round(self) -> None:
        self._num_rounds_to_rest -= 1

    def follow(self, sequences: Sequence[ScoreRequest]) -> None:
        if self._follower is None or not self.is_enabled:
            return
        try:
            self._follower.follow(sequences)
        except Exception:
            logger.exception("drafter %s failed to follow", self.name)
            self._note("follow", failed=True)
        else:
            self._note("follow", failed=False)

    def ask(self, requests: Sequence[DraftRequest]) -> bool:
        """Whether a drafter elsewhere has begun to draft; see `take`."""
        assert self._follower is not None, "only drafters elsewhere draft meanwhile"
        try:
            self._follower.ask(requests)
        except Exception:
            logger.exception("drafter %s failed to be asked", self.name)
            self._note("draft", failed=True)
            return False
        return True

    def take(self, wanted: Mapping[str, DraftRequest], wait_s: float) -> dict[str, Draft]:
        """By sequence, the drafts that have come of those that were asked for and are `wanted`."""
        assert self._follower is not None, "only drafters elsewhere draft meanwhile"
        none = {sequence_id: Draft(len(r.tokens)) for sequence_id, r in wanted.items()}
        try:
            found = self._follower.take(wait_s)
            drafts = {key: found[key] for key in wanted if key in found}
        except Exception:
            logger.exception("drafter %s failed to answer", self.name)
            self._note("draft", failed=True)
            return none
        valid = {key: self._is_valid(draft, wanted[key]) for key, draft in drafts.items()}
        self._note_drafts(drafts.values(), all(valid.values()))
        return {key: draft if valid[key] else none[key] for key, draft in drafts.items()}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        none = [Draft(len(request.tokens)) for request in requests]
        try:
            drafts = self._drafter.draft(requests)
            complete = len(drafts) == len(requests)
        except Exception:
            logger.exception("drafter %s failed", self.name)
            complete = False
        if not complete:
            self._note("draft", failed=True)
            return none
        valid = [self._is_valid(d, r) for d, r in zip(drafts, requests, strict=True)]
        self._note_drafts(drafts, all(valid))
        return [d if ok else n for d, ok, n in zip(drafts, valid, none, strict=True)]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        try:
            outcomes = self._drafter.score(requests)
            valid = len(outcomes) == len(requests) and all(
                map(_is_possible, (outcome for each in outcomes for outcome in each))
            )
        except Exception:
            logger.exception("drafter %s failed to score", self.name)
            valid = False
        self._note("score", failed=not valid)
        return outcomes if valid else [[] for _ in requests]

    def forecast(self, requests: Sequence[DraftRequest]) -> list[float | None]:
        """Of a drafter that can; None where it cannot tell, or says nonsense."""
        none: list[float | None] = [None] * len(requests)
        if not isinstance(self._drafter, Forecaster):
            return none
        try:
            chances = self._drafter.forecast(requests)
            valid = len(chances) == len(requests) and all(map(_is_chance, chances))
        except Exception:
            logger.exception("drafter %s failed to forecast", self.name)
            valid = False
        self._note("forecast", failed=not valid)
        return chances if valid else none

    def forget(self, sequence_ids: Iterable[str]) -> None:
        try:
            self._drafter.forget(sequence_ids)
        except Exception:
            logger.exception("drafter %s failed to forget", self.name)
            self.num_failures += 1

    def _note_drafts(self, drafts: Iterable[Draft], are_valid: bool) -> None:
        """What was never made excuses nothing: one that may not be asked now gives it as well."""
        if not are_valid or any(draft.is_made for draft in drafts):
            self._note("draft", failed=not are_valid)

    def _note(self, kind: Kind, failed: bool) -> None:
        self.num_failures += failed
        self._num_in_row[kind] = self._num_in_row[kind] + 1 if failed else 0
        if failed:
            self._num_rounds_to_rest = _REST_ROUNDS

    def _is_valid(self, draft: Draft, request: DraftRequest) -> bool:
        return (
            isinstance(draft, Draft)
            and isinstance(draft.tokens, tuple)
            and _is_count(draft.match_length)
            and _is_count(draft.streak)
            and type(draft.is_stopped) is bool
            and draft.base_length == len(request.tokens)
            and len(draft.tokens) <= request.draft_length
            and all(type(t) is int and 0 <= t < self._vocab_size for t in draft.tokens)
        )


def _is_possible(outcome: Outcome) -> bool:
    return (
        isinstance(outcome, Outcome)
        and _is_count(outcome.num_offered)
        and _is_count(outcome.accept_length)
        and outcome.accept_length <= outcome.num_offered
    )


def _is_chance(value: object) -> bool:
    return value is None or (type(value) is float and 0.0 <= value <= 1.0)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
