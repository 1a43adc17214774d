"""A target's side of one host: its replicas, and what each of them knows of the sequences.

A sequence stays with the replica that rendezvous hashing gave it until that one is away. Verified
tokens are sent ahead and never waited for; a question is over when it is answered, refused or late.
One thread calls everything but `find`.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from deployments.host_link import HostLink
from deployments.messages import (
    MAX_MESSAGE_TOKENS,
    AskDraft,
    AskScore,
    Close,
    Drafts,
    Identity,
    Known,
    NeedFrom,
    Open,
    Refused,
    Scores,
    ToTarget,
    Verified,
    Welcome,
)
from deployments.questions import SCORE_TIMEOUT_S, Question, Questions
from deployments.sockets import Endpoint, TransportError
from deployments.wire import Wire
from engine.drafters.drafter import DraftRequest, ScoreRequest

_PAUSE_S = 0.002  # between looks at hosts that do not answer yet
_MAX_NEWS_TOKENS = 256  # of one sequence beside others in one message

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Sequence:
    """A sequence at a replica, which should know `num_sent` tokens of it."""

    link: HostLink
    number: int
    num_sent: int = 0


Ask = Callable[[int, Sequence[tuple[int, Known]]], AskDraft | AskScore]
"""Makes a question from its round and, by index of the request, what the replica may not know."""


class HostClient:
    """Waits `timeout_s` at most for drafts, and for scores not at all."""

    def __init__(self, wire: Wire, identity: Identity, timeout_s: float) -> None:
        self._wire = wire
        self._identity = identity
        self.timeout_s = timeout_s
        self._endpoints: Sequence[Endpoint] = ()
        self._offered: frozenset[str] | None = None
        self._strangers: set[Endpoint] = set()
        self._links: dict[Endpoint, HostLink] = {}
        self._sequences: dict[str, _Sequence] = {}
        self._by_number: dict[int, _Sequence] = {}
        self._questions = Questions()
        self._last_number = 0  # of a sequence or a round
        wire.add(self)

    @property
    def is_away(self) -> bool:
        """Whether no replica may be asked now."""
        return not any(link.is_ready for link in tuple(self._links.values()))  # from any thread

    @property
    def num_bytes(self) -> int:
        """Of the messages to and from the present replicas."""
        return sum(link.num_bytes for link in self._links.values())

    def find(self, endpoints: Sequence[Endpoint], offered: frozenset[str] | None = None) -> None:
        """Where the replicas are; heeded at the next call of anything else.

        `offered` are the drafters that all of them have; None if that is not known.
        """
        self._endpoints, self._offered = tuple(endpoints), offered

    def offers(self, drafter: str) -> bool:
        return self._offered is None or drafter in self._offered

    def wait(self, timeout_s: float) -> bool:
        """Whether a replica is ready, within that time."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - self.read()) > 0.0 and self.is_away:
            self._wire.wait(min(left_s, _PAUSE_S))
        return not self.is_away

    def wait_for(self, questions: Sequence[Question], timeout_s: float) -> None:
        """Until something has come from any host, one of `questions` is over, or the time is."""
        now_s = self.read()
        if questions and not any(question.is_over for question in questions):
            first_s = min(question.deadline_s for question in questions) - now_s
            self._wire.wait(min(timeout_s, first_s))
            self.read()

    def follow(self, requests: Sequence[ScoreRequest]) -> None:
        """Sends what is new of these sequences."""
        now_s = self.read()
        news: dict[HostLink, list[tuple[_Sequence, Known]]] = defaultdict(list)
        for request in requests:
            sequence = self._place(request.sequence_id, now_s)
            if sequence is None or sequence.num_sent == len(request.tokens):
                continue
            known = self._prepare(sequence, request)
            if known is not None and known.tokens:
                news[sequence.link].append((sequence, known))
        for link, parts in news.items():
            if link.send(Verified(tuple(known for _, known in parts))):
                _note_sent(parts)

    def ask(self, requests: Sequence[DraftRequest | ScoreRequest], ask: Ask) -> list[Question]:
        """One question per replica; none about sequences whose replica may not be asked now."""
        now_s = self.read()
        by_link: dict[HostLink, list[tuple[int, _Sequence, Known]]] = defaultdict(list)
        for i, request in enumerate(requests):
            sequence = self._place(request.sequence_id, now_s)
            if sequence is None or not sequence.link.is_ready:
                continue
            known = self._prepare(sequence, request)
            if known is not None:
                by_link[sequence.link].append((i, sequence, known))
        return [self._send(link, parts, ask, now_s) for link, parts in by_link.items()]

    def _send(
        self,
        link: HostLink,
        parts: Sequence[tuple[int, _Sequence, Known]],
        ask: Ask,
        now_s: float,
    ) -> Question:
        number = self._next_number()
        message = ask(number, [(i, known) for i, _, known in parts])
        is_urgent = isinstance(message, AskDraft)
        deadline_s = now_s + (self.timeout_s if is_urgent else SCORE_TIMEOUT_S)
        question = Question(tuple(i for i, _, _ in parts), deadline_s, is_urgent)
        if link.send(message):
            _note_sent((sequence, known) for _, sequence, known in parts)
            self._questions.add(number, link, question)
        else:
            question.is_over = question.is_late = True
            if is_urgent:
                link.owe(number, now_s)
        return question

    def forget(self, sequence_ids: Iterable[str]) -> None:
        numbers: dict[HostLink, list[int]] = defaultdict(list)
        for sequence_id in sequence_ids:
            sequence = self._sequences.pop(sequence_id, None)
            if sequence is not None:
                del self._by_number[sequence.number]
                numbers[sequence.link].append(sequence.number)
        now_s = time.monotonic()
        for link, closed in numbers.items():
            if not link.is_away(now_s):
                link.send(Close(tuple(closed)))

    def forget_all(self) -> None:
        """When it has no drafters any more."""
        self.forget(list(self._sequences))

    def close(self) -> None:
        for link in self._links.values():
            self._wire.disconnect(link)
        self._links.clear()
        self._wire.remove(self)

    def read(self) -> float:
        """Connects, takes what has arrived, greets who is silent; never waits; gives the time."""
        now_s = time.monotonic()
        endpoints = self._endpoints
        for endpoint in endpoints:
            if endpoint not in self._links and endpoint not in self._strangers:
                self._connect(endpoint)
        for endpoint, link in list(self._links.items()):
            for message in link.receive():
                self._note(link, message)
            if endpoint in endpoints or link.is_ready:
                link.greet(self._next_number, now_s)
            else:  # neither Serve nor we hear of it
                self._wire.disconnect(link)
                del self._links[endpoint]
        self._questions.give_up(now_s)
        return now_s

    def _connect(self, endpoint: Endpoint) -> None:
        try:
            self._links[endpoint] = self._wire.connect(endpoint)
        except TransportError as error:
            logger.error("a host cannot be used: %s", error)
            self._strangers.add(endpoint)

    def _note(self, link: HostLink, message: ToTarget) -> None:
        match message:
            case NeedFrom():  # it gets that with the next message
                sequence = self._by_number.get(message.sequence)
                if sequence is not None and sequence.link is link:
                    sequence.num_sent = min(sequence.num_sent, message.length)
            case Refused():
                self._questions.refuse(link)
            case Drafts() | Scores():
                self._questions.answer(link, message)
            case Welcome():
                pass  # the link has taken note

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _place(self, sequence_id: str, now_s: float) -> _Sequence | None:
        """The sequence at its replica, or at another if that is away; None if all are."""
        sequence = self._sequences.get(sequence_id)
        if sequence is not None and not sequence.link.is_away(now_s):
            return sequence
        ready = [link for link in self._links.values() if link.is_ready]
        if not ready:
            return None
        if sequence is not None:
            del self._by_number[sequence.number]
        link = max(ready, key=lambda each: each.weight(sequence_id))
        sequence = _Sequence(link, self._next_number())
        self._sequences[sequence_id] = self._by_number[sequence.number] = sequence
        return sequence

    def _prepare(self, sequence: _Sequence, request: DraftRequest | ScoreRequest) -> Known | None:
        """Sends all but the last of what the replica lacks, and gives that; None if it cannot."""
        link, tokens = sequence.link, request.tokens
        if sequence.num_sent == 0:
            first = Open(
                sequence.number,
                request.sequence_id,
                request.tenant,
                self._identity,
                request.num_prompt_tokens,
                request.sampling,
                tuple(tokens[:MAX_MESSAGE_TOKENS]),
            )
            if not link.send(first):
                return None
            sequence.num_sent = len(first.tokens)
        while len(tokens) - sequence.num_sent > _MAX_NEWS_TOKENS:
            start = sequence.num_sent
            more = Known(sequence.number, start, tuple(tokens[start : start + MAX_MESSAGE_TOKENS]))
            if not link.send(Verified((more,))):
                return None
            sequence.num_sent += len(more.tokens)
        return Known(sequence.number, sequence.num_sent, tuple(tokens[sequence.num_sent :]))


def _note_sent(parts: Iterable[tuple[_Sequence, Known]]) -> None:
    for sequence, known in parts:
        sequence.num_sent = known.base_length + len(known.tokens)
