"""Prompt lookup: what followed the last tokens when they last occurred in this sequence.

The longest match wins, the most recent among equals. A draft that reaches the end of the known
tokens goes on with the period it found. No match, no offer. (Saxena, "Prompt Lookup Decoding".)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest

MAX_CANDIDATES = 16  # earlier places compared for one match: bounds the cost of common n-grams


@dataclass(slots=True)
class Offer:
    """What could be drafted at `base_length`: `num_offered` tokens of `source` from `start` on.

    `source` is an append-only list, so that this is a pointer and not a copy. If `source` is the
    sequence itself, an offer that is longer than what is known repeats its last
    `base_length - start` tokens: a token is then accepted exactly if it equals the one a period
    before it, which is again `source[start + i]`.
    """

    base_length: int
    source: Sequence[int]
    start: int
    num_offered: int
    match_length: int
    accept_length: int = 0
    streak: int = 0

    def draft(self, draft_length: int) -> Draft:
        length = max(0, min(draft_length, self.num_offered))
        tokens = tuple(self.source[self.start : self.start + length])
        if len(tokens) < length:
            tokens = (tokens * (length // len(tokens) + 1))[:length]
        return Draft(self.base_length, tokens, self.match_length if tokens else 0, self.streak)

    def predicts(self, token: int) -> bool:
        return self.num_offered > 0 and self.source[self.start] == token

    def advance(self, tokens: Sequence[int]) -> bool:
        """Counts what `tokens` newly accepts; True if the accept length is final."""
        num_known = len(tokens) - self.base_length
        while self.accept_length < min(self.num_offered, num_known):
            if (
                self.source[self.start + self.accept_length]
                != tokens[self.base_length + self.accept_length]
            ):
                return True
            self.accept_length += 1
        return num_known > 0 and self.accept_length == self.num_offered

    def outcome(self, censored: bool = False) -> Outcome:
        return Outcome(self.base_length, self.num_offered, self.accept_length, censored)


class OpenOffers:
    """The offers of one sequence until their accept lengths are known, then those until asked for.

    At most `max_draft_length` + 1 offers are open: `settle` with every growth lets go of the rest.
    """

    def __init__(self) -> None:
        self._offers: list[Offer] = []
        self._outcomes: list[Outcome] = []
        self._latest: Offer | None = None

    def __len__(self) -> int:
        return len(self._offers)

    def record(self, offer: Offer, last_token: int) -> None:
        """Takes the next position's offer; `last_token` is the one before it."""
        if self._latest is not None and self._latest.predicts(last_token):
            offer.streak = self._latest.streak + 1
        self._latest = offer
        self._offers.append(offer)

    def settle(self, tokens: Sequence[int]) -> None:
        """Finds the outcomes that `tokens` settles; an offer at their very end stays open."""
        still_open: list[Offer] = []
        for offer in self._offers:
            if offer.advance(tokens):
                self._outcomes.append(offer.outcome())
            else:
                still_open.append(offer)
        self._offers = still_open

    def take(self, num_tokens: int, finished: bool) -> list[Outcome]:
        """The outcomes since the last call, by position; `finished` adds the open ones, censored.

        An offer at the very end of a finished sequence was never tested, and is dropped.
        """
        outcomes, self._outcomes = self._outcomes, []
        if finished:
            tested = [offer for offer in self._offers if offer.base_length < num_tokens]
            outcomes += [offer.outcome(censored=True) for offer in tested]
            self._offers = []
        return sorted(outcomes, key=lambda outcome: outcome.base_length)


class _Sequence:
    """The tokens of one sequence, and where each run of `min_match` tokens last ended."""

    def __init__(self, min_match: int, max_match: int, max_draft_length: int) -> None:
        self.tokens: list[int] = []
        self.offer = Offer(0, self.tokens, 0, 0, 0)
        self.open_offers = OpenOffers()
        self._min_match = min_match
        self._max_match = max_match
        self._max_draft_length = max_draft_length
        self._latest_end: dict[tuple[int, ...], int] = {}
        self._previous_end: list[int] = [0]  # by end; 0 is "none"

    def extend(self, tokens: Sequence[int], num_prompt_tokens: int) -> None:
        for position in range(len(self.tokens), len(tokens)):
            self._append(tokens[position])
            if position + 1 >= num_prompt_tokens:
                self.offer = self._match()
                self.open_offers.record(self.offer, tokens[position])
        self.open_offers.settle(self.tokens)

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        end = len(self.tokens)
        if end < self._min_match:
            self._previous_end.append(0)
            return
        ngram = tuple(self.tokens[end - self._min_match :])
        self._previous_end.append(self._latest_end.get(ngram, 0))
        self._latest_end[ngram] = end

    def _match(self) -> Offer:
        end = len(self.tokens)
        best_end, best_length = 0, 0
        candidate = self._previous_end[end]
        for _ in range(MAX_CANDIDATES):
            if not candidate or best_length == self._max_match:
                break
            length = self._match_length(candidate, end)
            if length > best_length:
                best_end, best_length = candidate, length
            candidate = self._previous_end[candidate]
        num_offered = self._max_draft_length if best_length else 0
        return Offer(end, self.tokens, best_end, num_offered, best_length)

    def _match_length(self, earlier_end: int, end: int) -> int:
        """How many tokens before both ends are equal, up to `max_match`."""
        length = self._min_match
        limit = min(self._max_match, earlier_end)
        tokens = self.tokens
        while length < limit and tokens[earlier_end - length - 1] == tokens[end - length - 1]:
            length += 1
        return length


class PromptLookupDrafter:
    """Matches the last `min_match` to `max_match` tokens of a sequence within the sequence."""

    is_free = True

    def __init__(
        self, name: str, max_draft_length: int, max_match: int = 16, min_match: int = 3
    ) -> None:
        assert 1 <= min_match <= max_match, "expected 1 <= min_match <= max_match"
        self.name = name
        self.max_draft_length = max_draft_length
        self._min_match = min_match
        self._max_match = max_match
        self._sequences: dict[str, _Sequence] = {}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._synced(request).offer.draft(request.draft_length) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        return [
            self._synced(request).open_offers.take(len(request.tokens), request.finished)
            for request in requests
        ]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            self._sequences.pop(sequence_id, None)

    def _synced(self, request: DraftRequest | ScoreRequest) -> _Sequence:
        sequence = self._sequences.get(request.sequence_id)
        if sequence is None:
            sequence = _Sequence(self._min_match, self._max_match, self.max_draft_length)
            self._sequences[request.sequence_id] = sequence
        sequence.extend(request.tokens, request.num_prompt_tokens)
        return sequence
