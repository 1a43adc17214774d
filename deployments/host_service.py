"""What a host does with targets' messages, without a socket: state, drafts, scores, catching up.

Questions are answered first; between them every drafter reads what was verified meanwhile, many
sequences in one call and many tokens of each, so that a draft finds its sequence read but for a few
and a score finds its outcomes. A long text is read in parts, so that nobody waits for another's;
until it is read it gets no offers. A drafter that targets hardly ask reads nothing before they do.
Who has nothing to read may draft ahead, as if targets accepted all. Nothing that a client sends,
and no drafter's failure, raises.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from deployments.drafting_ahead import DraftingAhead
from deployments.host_answers import drafted, scored
from deployments.hosted_sequences import HostedSequence, HostedSequences
from deployments.messages import (
    AskDraft,
    AskScore,
    Close,
    Drafts,
    Hello,
    Identity,
    Known,
    MessageError,
    NeedFrom,
    Open,
    Refused,
    Scores,
    ToTarget,
    Verified,
    Welcome,
    decode_at_host,
    encode,
)
from deployments.reading_ahead import MAX_READ_TOKENS, ReadingAhead
from engine.drafters.drafter import Drafter, Reader

MAX_TOKENS = 2**22  # of all sequences
IDLE_S = 120.0  # until a sequence is forgotten of which nothing is heard
_USUAL_NEWS_TOKENS = 16  # that are read of each sequence of one question, however many they are
_MAX_BUSY_GOES = 8  # of answers alone, while something waits to be read
_MAX_OUTCOMES = 256  # kept of each sequence and drafter: targets ask for none that are older

T = TypeVar("T")
Found = list[HostedSequence | None]
"""Of each part of a question its sequence; None where the host lacks tokens of it."""

logger = logging.getLogger(__name__)


class HostService:
    """Owns `drafters`: nobody else may call them. `identity` is that of the only target served."""

    def __init__(
        self,
        drafters: Sequence[Drafter],
        identity: Identity,
        max_tokens: int = MAX_TOKENS,
        drafts_ahead: bool = False,
    ) -> None:
        self.num_refused_messages = 0
        self._drafters = {drafter.name: drafter for drafter in drafters}
        self._identity = identity
        self._sequences = HostedSequences(max_tokens)
        self._unread = ReadingAhead(self._drafters)
        self._ahead = DraftingAhead(drafts_ahead)
        self._draft_asks: list[tuple[bytes, AskDraft, Found]] = []
        self._score_asks: list[tuple[bytes, AskScore, Found]] = []
        self._num_busy_goes = 0
        self._closed: list[str] = []  # to be forgotten once what was asked before is answered
        self._replies: list[tuple[bytes, bytes]] = []

    @property
    def num_sequences(self) -> int:
        return len(self._sequences)

    @property
    def has_work(self) -> bool:
        return any((self._draft_asks, self._score_asks, self._unread, self._ahead))

    def receive(self, client: bytes, data: bytes, now_s: float) -> None:
        """Takes in a message; what it asks for is done by `work`."""
        try:
            message = decode_at_host(data)
        except MessageError:
            self.num_refused_messages += 1
            return
        match message:
            case Hello():
                self._reply(client, Welcome(message.round))
            case Open():
                self._open(client, message, now_s)
            case Verified():
                for known in message.news:
                    self._extend(client, known, now_s)
            case AskDraft():
                found = [
                    self._extend(client, p.known, now_s, message.drafter) for p in message.parts
                ]
                self._draft_asks.append((client, message, found))
            case AskScore():
                found = [
                    self._extend(client, p.known, now_s, message.drafter) for p in message.parts
                ]
                self._score_asks.append((client, message, found))
            case Close():
                for sequence in self._sequences.close(client, message.sequences):
                    self._unread.note_end(sequence)
                    self._closed.append(sequence.id)

    def use_drafters(self, drafters: Sequence[Drafter]) -> None:
        """These from now on. One that stays is the same object; a new one reads everything."""
        before, self._drafters = self._drafters, {drafter.name: drafter for drafter in drafters}
        kept = {name for name, drafter in self._drafters.items() if before.get(name) is drafter}
        self._ahead.clear()
        self._unread.use_drafters(kept, self._drafters.keys() - kept)
        for sequence in self._sequences.all():
            for name in (before.keys() | self._drafters.keys()) - kept:
                sequence.forget_drafter(name)
            self._unread.note(sequence)

    def work(self, now_s: float) -> None:
        """Answers what was asked; if nothing was, or always something, a drafter reads on a while.

        A drafter that is not here, not yet or no more, offers nothing and has no outcomes.
        """
        is_asked = bool(self._draft_asks or self._score_asks)
        draft_asks, self._draft_asks = self._draft_asks, []
        score_asks, self._score_asks = self._score_asks, []
        for client, asked in [(c, a) for c, a, _ in draft_asks if a.drafter not in self._drafters]:
            self._reply(client, Drafts(asked.round, (None,) * len(asked.parts)))
        for name in self._drafters:
            self._draft(name, [each for each in draft_asks if each[1].drafter == name])
        for client, ask, found in score_asks:
            self._reply(client, self._scores(ask, found))
        self._num_busy_goes = self._num_busy_goes + 1 if is_asked else _MAX_BUSY_GOES
        if self._num_busy_goes >= _MAX_BUSY_GOES:
            self._num_busy_goes = 0
            if not (self._catch_up() or is_asked):
                self._drop(*self._ahead.go_on(self._drafters))
        closed, self._closed = self._closed, []
        evicted = self._sequences.evict(now_s, IDLE_S)
        self._forget([*closed, *(sequence.id for sequence in evicted)])

    def take_replies(self) -> list[tuple[bytes, bytes]]:
        """(client, message) of everything to be sent."""
        replies, self._replies = self._replies, []
        return replies

    def _reply(self, client: bytes, message: ToTarget) -> None:
        self._replies.append((client, encode(message)))

    def _open(self, client: bytes, message: Open, now_s: float) -> None:
        if message.identity != self._identity:
            self._reply(client, Refused("its drafters are for another target model"))
            return
        self._sequences.open(client, message, now_s)
        self._unread.note(self._find((client, message.sequence)))

    def _extend(
        self, client: bytes, known: Known, now_s: float, asked: str | None = None
    ) -> HostedSequence | None:
        """The sequence, if it has exactly the tokens that the message knows of, which may ask a
        drafter about it."""
        num_tokens = self._sequences.extend(client, known, now_s)
        if num_tokens is not None:
            self._reply(client, NeedFrom(known.sequence, num_tokens))
            return None
        sequence = self._find((client, known.sequence))
        if asked is not None:
            sequence.asked.add(asked)
        self._unread.note(sequence)
        is_current = len(sequence.tokens) == known.base_length + len(known.tokens)
        return sequence if is_current and sequence.has_prompt else None

    def _find(self, key: tuple[bytes, int]) -> HostedSequence:
        sequence = self._sequences.find(key)
        assert sequence is not None, "it was extended just now"
        return sequence

    def _draft(self, name: str, asks: Sequence[tuple[bytes, AskDraft, Found]]) -> None:
        """One call for all; a sequence that is asked for twice is drafted once."""
        wanted: dict[str, tuple[HostedSequence, int]] = {}
        for _, ask, found in asks:
            for part, sequence in zip(ask.parts, found, strict=True):
                if sequence is not None:
                    wanted.setdefault(sequence.id, (sequence, part.draft_length))
        ready = self._read(name, [sequence for sequence, _ in wanted.values()])
        drafts = None
        if ready is not None:
            requests = [sequence.draft_request(wanted[sequence.id][1]) for sequence in ready]
            drafts = self._call(name, ready, lambda: drafted(self._drafters[name], requests))
            self._ahead.note(self._drafters[name], requests)
        by_id = {s.id: draft for s, draft in zip(ready or (), drafts or (), strict=bool(drafts))}
        for client, ask, found in asks:
            answers = [by_id.get(sequence.id) if sequence else None for sequence in found]
            self._reply(client, Drafts(ask.round, () if drafts is None else tuple(answers)))

    def _scores(self, ask: AskScore, found: Found) -> Scores:
        if ask.drafter not in self._drafters:
            return Scores(ask.round, ((),) * len(found))
        parts = {
            sequence.id: (sequence, part.finished)
            for part, sequence in zip(ask.parts, found, strict=True)
            if sequence is not None
        }
        self._score(ask.drafter, list(parts.values()))
        outcomes = [
            sequence.outcomes.pop(ask.drafter, []) if sequence else [] for sequence in found
        ]
        return Scores(ask.round, tuple(map(tuple, outcomes)))

    def _catch_up(self) -> bool:
        """The next drafter reads what is new; whether any had something new."""
        found = self._unread.next()
        if found is not None:
            name, batch = found
            self._score(name, [(sequence, False) for sequence in batch])
        return found is not None

    def _score(self, name: str, parts: Sequence[tuple[HostedSequence, bool]]) -> None:
        """Keeps what is settled until it is asked for."""
        sequences = self._read(name, [sequence for sequence, _ in parts]) or []
        is_finished = {sequence.id: finished for sequence, finished in parts}
        requests = [sequence.score_request(is_finished[sequence.id]) for sequence in sequences]
        settled = self._call(name, sequences, lambda: scored(self._drafters[name], requests))
        for sequence, outcomes in zip(sequences, settled or (), strict=settled is not None):
            sequence.outcomes[name] = [*sequence.outcomes[name], *outcomes][-_MAX_OUTCOMES:]

    def _read(self, name: str, sequences: Sequence[HostedSequence]) -> list[HostedSequence] | None:
        """Those that the drafter has read, of long ones but a part now; None if it failed."""
        drafter = self._drafters[name]
        if not isinstance(drafter, Reader):
            return list(sequences)
        requests = [sequence.score_request(finished=False) for sequence in sequences]
        budget = max(MAX_READ_TOKENS, _USUAL_NEWS_TOKENS * len(sequences))
        left = self._call(name, sequences, lambda: drafter.read(requests, budget))
        if left is None:
            return None
        for sequence, num_left in zip(sequences, left, strict=True):
            sequence.num_read[name] -= num_left
            if num_left:
                self._unread.put(name, sequence)
        return [sequence for sequence in sequences if not sequence.num_unread(name)]

    def _call(
        self, name: str, sequences: Sequence[HostedSequence], call: Callable[[], list[T]]
    ) -> list[T] | None:
        """What the drafter says of these sequences, which it has read then; None if it failed."""
        if not sequences:
            return []
        for sequence in sequences:
            sequence.num_read[name] = len(sequence.tokens)
        self._unread.drop(name, [sequence.id for sequence in sequences])
        try:
            answers = call()
            assert len(answers) == len(sequences), "one answer per request"
        except Exception:
            logger.exception("drafter %s failed", name)
            self._start_afresh(name, sequences)
            return None
        return answers

    def _start_afresh(self, name: str, sequences: Sequence[HostedSequence]) -> None:
        """After a failure nothing is left that it may have spoilt."""
        for sequence in sequences:
            sequence.outcomes.pop(name, None)
        self._drop(name, [sequence.id for sequence in sequences])

    def _forget(self, sequence_ids: Sequence[str]) -> None:
        self._ahead.forget(sequence_ids)
        for name in self._drafters:
            self._unread.drop(name, sequence_ids)
            self._drop(name, sequence_ids)

    def _drop(self, name: str, sequence_ids: Sequence[str]) -> None:
        if not sequence_ids:
            return
        try:
            self._drafters[name].forget(sequence_ids)
        except Exception:
            logger.exception("drafter %s failed to forget", name)
