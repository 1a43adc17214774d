"""A target's side of one host: its replicas, and what each of them knows of the sequences.

A sequence stays with the replica that rendezvous hashing gave it until that one is away. Verified
tokens are sent ahead and never waited for; drafts and scores are waited for until a deadline. One
thread calls everything but `find`.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import zmq

from deployments.host_link import HostLink
from deployments.messages import (
    MAX_MESSAGE_TOKENS,
    AskDraft,
    AskScore,
    Close,
    DraftPart,
    Drafts,
    Identity,
    Known,
    NeedFrom,
    Open,
    Refused,
    ScorePart,
    Scores,
    ToTarget,
    Verified,
)
from deployments.sockets import Context, Endpoint, TransportError
from deployments.transport_keys import TransportKeys
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest

_MAX_NEWS_TOKENS = 256  # of one sequence beside others in one message

Answer = TypeVar("Answer", Drafts, Scores)
LATE = Draft(base_length=-1)
"""In place of a draft that did not come: no sequence is that long, so that it counts as failure."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Sequence:
    """A sequence at a replica, which should know `num_sent` tokens of it."""

    link: HostLink
    number: int
    num_sent: int = 0


class HostClient:
    """Waits `timeout_s` at most for an answer, of all replicas together."""

    def __init__(self, keys: TransportKeys, identity: Identity, timeout_s: float) -> None:
        self._keys = keys
        self._identity = identity
        self._timeout_s = timeout_s
        self._context: Context = zmq.Context()
        self._endpoints: Sequence[Endpoint] = ()
        self._strangers: set[Endpoint] = set()
        self._links: dict[Endpoint, HostLink] = {}
        self._sequences: dict[str, _Sequence] = {}
        self._by_number: dict[int, _Sequence] = {}
        self._last_number = 0  # of a sequence or a round

    @property
    def is_away(self) -> bool:
        """Whether no replica may be asked now."""
        return not any(link.is_ready for link in self._links.values())

    @property
    def num_bytes(self) -> int:
        """Of the messages to and from the present replicas."""
        return sum(link.num_bytes for link in self._links.values())

    def find(self, endpoints: Sequence[Endpoint]) -> None:
        """Where the replicas are; heeded at the next call of anything else."""
        self._endpoints = tuple(endpoints)

    def wait(self, timeout_s: float) -> bool:
        """Whether a replica is ready, within that time."""
        deadline_s = time.monotonic() + timeout_s
        while self._refresh() < deadline_s and self.is_away:
            time.sleep(0.002)
        return not self.is_away

    def follow(self, requests: Sequence[ScoreRequest]) -> None:
        """Sends what is new of these sequences."""
        now_s = self._refresh()
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

    def draft(self, drafter: str, requests: Sequence[DraftRequest]) -> list[Draft]:
        """No offer where the replica may not be asked now; LATE where it did not answer."""

        def ask(number: int, indices: Sequence[int]) -> AskDraft:
            parts = [DraftPart(asked[i][1], requests[i].draft_length) for i in indices]
            return AskDraft(number, drafter, tuple(parts))

        asked = self._prepare_all(requests)
        drafts = [
            LATE if i in asked else Draft(len(request.tokens)) for i, request in enumerate(requests)
        ]
        for indices, answer in self._ask(asked, ask, Drafts):
            for i, draft in zip(indices, answer.drafts, strict=False):
                drafts[i] = (
                    Draft(len(requests[i].tokens))
                    if draft is None
                    else Draft(draft.base_length, draft.tokens, draft.match_length, draft.streak)
                )
        return drafts

    def score(self, drafter: str, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        """No outcomes where none came in time."""

        def ask(number: int, indices: Sequence[int]) -> AskScore:
            parts = [ScorePart(asked[i][1], requests[i].finished) for i in indices]
            return AskScore(number, drafter, tuple(parts))

        asked = self._prepare_all(requests)
        outcomes: list[list[Outcome]] = [[] for _ in requests]
        for indices, answer in self._ask(asked, ask, Scores):
            for i, scored in zip(indices, answer.outcomes, strict=False):
                outcomes[i] = [
                    Outcome(each.base_length, each.num_offered, each.accept_length, each.censored)
                    for each in scored
                ]
        return outcomes

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

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._context.destroy(linger=0)

    def _refresh(self) -> float:
        """Connects, reads what has arrived, greets who is silent; gives the time."""
        now_s = time.monotonic()
        endpoints = self._endpoints
        for endpoint in endpoints:
            if endpoint not in self._links and endpoint not in self._strangers:
                self._connect(endpoint)
        for endpoint, link in list(self._links.items()):
            for message in link.receive():
                self._note(link, message)
            if endpoint in endpoints or link.is_ready:
                link.greet(self._next_number(), now_s)
            else:  # neither Serve nor we hear of it
                link.close()
                del self._links[endpoint]
        return now_s

    def _connect(self, endpoint: Endpoint) -> None:
        try:
            self._links[endpoint] = HostLink(self._context, endpoint, self._keys)
        except TransportError as error:
            logger.error("a host cannot be used: %s", error)
            self._strangers.add(endpoint)

    def _note(self, link: HostLink, message: ToTarget) -> None:
        """A host that lacks tokens gets them with the next message."""
        if isinstance(message, NeedFrom):
            sequence = self._by_number.get(message.sequence)
            if sequence is not None and sequence.link is link:
                sequence.num_sent = min(sequence.num_sent, message.length)

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

    def _prepare_all(
        self, requests: Sequence[DraftRequest] | Sequence[ScoreRequest]
    ) -> dict[int, tuple[_Sequence, Known]]:
        """By index, the sequences whose replica can be asked now."""
        now_s = self._refresh()
        prepared = {}
        for i, request in enumerate(requests):
            sequence = self._place(request.sequence_id, now_s)
            if sequence is None or not sequence.link.is_ready:
                continue
            known = self._prepare(sequence, request)
            if known is not None:
                prepared[i] = (sequence, known)
        return prepared

    def _ask(
        self,
        asked: Mapping[int, tuple[_Sequence, Known]],
        ask: Callable[[int, Sequence[int]], AskDraft | AskScore],
        kind: type[Answer],
    ) -> list[tuple[Sequence[int], Answer]]:
        """One question per replica, about the sequences with these indices; the answers in time."""
        by_link: dict[HostLink, list[int]] = defaultdict(list)
        for i, (sequence, _) in asked.items():
            by_link[sequence.link].append(i)
        number, waiting = self._next_number(), {}
        for link, indices in by_link.items():
            if link.send(ask(number, indices)):
                _note_sent([asked[i] for i in indices])
                waiting[link] = indices
            else:
                link.owe(number, time.monotonic())
        answers = self._collect(number, waiting, kind)
        return [(indices, answers[link]) for link, indices in waiting.items() if link in answers]

    def _collect(
        self, number: int, links: Iterable[HostLink], kind: type[Answer]
    ) -> dict[HostLink, Answer]:
        """What comes before the deadline; who misses it owes an answer from then on."""
        deadline_s = time.monotonic() + self._timeout_s
        waiting, answers = {link.socket: link for link in links}, {}
        while waiting and (left_s := deadline_s - time.monotonic()) > 0:
            ready, _, _ = zmq.select(list(waiting), [], [], math.ceil(left_s * 1e3) / 1e3)
            for socket in ready:
                link = waiting[socket]
                for message in link.receive():
                    self._note(link, message)
                    if isinstance(message, Refused):
                        waiting.pop(socket, None)
                    elif isinstance(message, kind) and message.round == number:
                        answers[link] = message
                        waiting.pop(socket, None)
        for link in waiting.values():
            link.owe(number, time.monotonic())
        return answers


def _note_sent(parts: Iterable[tuple[_Sequence, Known]]) -> None:
    for sequence, known in parts:
        sequence.num_sent = known.base_length + len(known.tokens)
