"""A host without its socket: a drafter that repeats the last token, and a target that asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hosting import IDENTITY

from deployments.host_service import HostService
from deployments.messages import (
    AskDraft,
    DraftPart,
    Drafts,
    Known,
    Open,
    ToHost,
    ToTarget,
    decode_at_target,
    encode,
)
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.request import SamplingParams

CLIENT = b"target"


class Echo:
    """Drafts the sequence's last token over and over; notes every call."""

    name = "echo"
    is_free = False
    max_draft_length = 4

    def __init__(self) -> None:
        self.fails = False
        self.drafted: list[int] = []  # requests by call
        self.scored: list[int] = []
        self.forgotten: list[str] = []

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        self.drafted.append(len(requests))
        if self.fails:
            raise RuntimeError("out of memory")
        return [Draft(len(r.tokens), (r.tokens[-1],) * r.draft_length) for r in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        self.scored.append(len(requests))
        if self.fails:
            raise RuntimeError("out of memory")
        return [[Outcome(len(request.tokens), 4, 0)] for request in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self.forgotten += sequence_ids


class Target:
    """Sends messages to a service, and reads what comes back."""

    def __init__(self, service: HostService, client: bytes = CLIENT) -> None:
        self.service, self.client, self.now_s = service, client, 0.0

    def send(self, *messages: ToHost) -> list[ToTarget]:
        for message in messages:
            self.service.receive(self.client, encode(message), self.now_s)
        self.service.work(self.now_s)
        return [decode_at_target(data) for _, data in self.service.take_replies()]

    def settle(self) -> None:
        while self.service.has_work:
            self.service.work(self.now_s)


def opened(number: int = 1, tokens: tuple[int, ...] = (1, 2, 3), prompt: int = 2) -> Open:
    return Open(number, f"s{number}", "tenant", IDENTITY, prompt, SamplingParams(), tokens)


def ask(base: int, tokens: tuple[int, ...] = (), number: int = 1, round_: int = 9) -> AskDraft:
    return AskDraft(round_, "echo", (DraftPart(Known(number, base, tokens), 2),))


def tokens_of(replies: Sequence[ToTarget]) -> tuple[int, ...] | None:
    (answer,) = (each for each in replies if isinstance(each, Drafts))
    (draft,) = answer.drafts
    return None if draft is None else draft.tokens
