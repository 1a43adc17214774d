"""A host whose drafter takes no time, and the same answer by Ray's ways: only distance is left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deployments.host_server import HostServer
from deployments.host_service import HostService
from deployments.messages import Identity
from deployments.sockets import Endpoint
from deployments.transport_keys import TransportKeys
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest

NAME = "null"
DRAFT_LENGTH = 4
IDENTITY = Identity("any", "any")
Question = list[tuple[int, int, list[int]]]
"""Of each sequence a number, how much of it is known, and what is new."""


class NullDrafter:
    """Drafts token 0, which is as good as never right."""

    name = NAME
    is_free = False
    max_draft_length = DRAFT_LENGTH

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(len(r.tokens), (0,) * r.draft_length) for r in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        return [[] for _ in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        pass


class NullHost:
    """For a Ray actor or a Serve deployment; its host listens on the loopback."""

    def __init__(self, secret: str) -> None:
        service = HostService([NullDrafter()], IDENTITY)
        self._server = HostServer(service, "127.0.0.1", TransportKeys([secret]))

    def endpoint(self) -> Endpoint:
        return self._server.endpoint

    def draft(self, question: Question) -> list[list[int]]:
        return [[0] * DRAFT_LENGTH for _ in question]
