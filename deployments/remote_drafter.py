"""A drafter that runs on a host, as the engine sees it: the same contract, with a deadline.

What is late, dead or nonsense becomes no offer, and `GuardedDrafter` counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployments.host_client import HostClient
from deployments.messages import AskDraft, AskScore, DraftPart, Drafts, Known, ScorePart, Scores
from deployments.questions import Question
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest

LATE = Draft(base_length=-1)
"""In place of a draft that did not come: no sequence is that long, so that it counts as failure."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A sequence's place in a question; no question if its replica may not be asked now."""

    base_length: int
    question: Question | None = None
    place: int = 0

    @property
    def is_over(self) -> bool:
        return self.question is None or self.question.is_over

    def draft(self) -> Draft:
        """No offer where the host has none, or may not be asked; LATE where it should have."""
        none = Draft(self.base_length)
        if self.question is None:
            return none
        answer = self.question.answer
        if not isinstance(answer, Drafts):
            return LATE if self.question.is_late or answer is not None else none
        if self.place >= len(answer.drafts):
            return LATE
        found = answer.drafts[self.place]
        if found is None:
            return none
        return Draft(
            found.base_length, found.tokens, found.match_length, found.streak, found.is_stopped
        )


class RemoteDrafter:
    """See Drafter and Follower. Drafters of one host share its `client`."""

    is_free = False

    def __init__(self, name: str, max_draft_length: int, client: HostClient) -> None:
        self.name = name
        self.max_draft_length = max_draft_length
        self._client = client
        self._asked: dict[str, _Asked] = {}
        self._scoring: dict[str, list[tuple[Question, int]]] = {}  # with the sequence's place
        self._finished: set[str] = set()  # asked about for the last time

    @property
    def is_away(self) -> bool:
        return self._client.is_away or not self._client.offers(self.name)

    def follow(self, sequences: Sequence[ScoreRequest]) -> None:
        self._client.follow(sequences)

    def ask(self, requests: Sequence[DraftRequest]) -> None:
        def message(number: int, parts: Sequence[tuple[int, Known]]) -> AskDraft:
            asked = tuple(DraftPart(known, requests[i].draft_length) for i, known in parts)
            return AskDraft(number, self.name, asked)

        for request in requests:
            self._asked[request.sequence_id] = _Asked(len(request.tokens))
        for question in self._client.ask(requests, message):
            for place, i in enumerate(question.indices):
                base_length = len(requests[i].tokens)
                self._asked[requests[i].sequence_id] = _Asked(base_length, question, place)

    def take(self, wait_s: float) -> dict[str, Draft]:
        if all(not asked.is_over for asked in self._asked.values()):
            questions = [asked.question for asked in self._asked.values()]
            self._client.wait_for([each for each in questions if each is not None], wait_s)
        over = [sequence_id for sequence_id, asked in self._asked.items() if asked.is_over]
        return {sequence_id: self._asked.pop(sequence_id).draft() for sequence_id in over}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        self.ask(requests)
        drafts: dict[str, Draft] = {}
        while any(request.sequence_id in self._asked for request in requests):
            drafts |= self.take(self._client.timeout_s)
        return [drafts[request.sequence_id] for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        """What has come of the questions before; asks where none is open, and never waits.

        Of a finished sequence the rest is asked for once.
        """
        asking = [r for r in requests if self._is_to_be_asked(r)]

        def message(number: int, parts: Sequence[tuple[int, Known]]) -> AskScore:
            asked = tuple(ScorePart(known, asking[i].finished) for i, known in parts)
            return AskScore(number, self.name, asked)

        for question in self._client.ask(asking, message):
            for place, i in enumerate(question.indices):
                self._scoring.setdefault(asking[i].sequence_id, []).append((question, place))
        self._finished.update(request.sequence_id for request in asking if request.finished)
        return [self._scored(request.sequence_id) for request in requests]

    def _is_to_be_asked(self, request: ScoreRequest) -> bool:
        if request.finished:
            return request.sequence_id not in self._finished
        return request.sequence_id not in self._scoring

    def _scored(self, sequence_id: str) -> list[Outcome]:
        """What has come, each outcome once."""
        outcomes, open_ = [], []
        for question, place in self._scoring.pop(sequence_id, ()):
            if not question.is_over:
                open_.append((question, place))
            elif isinstance(question.answer, Scores) and place < len(question.answer.outcomes):
                outcomes += [
                    Outcome(o.base_length, o.num_offered, o.accept_length, o.censored)
                    for o in question.answer.outcomes[place]
                ]
        if open_:
            self._scoring[sequence_id] = open_
        return outcomes

    def forget(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            self._asked.pop(sequence_id, None)
            self._scoring.pop(sequence_id, None)
            self._finished.discard(sequence_id)
        self._client.forget(sequence_ids)
