"""A drafter that runs on a host, as the engine sees it: the same contract, with a deadline.

What is late, dead or nonsense becomes no offer, and `GuardedDrafter` counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deployments.host_client import HostClient
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest


class RemoteDrafter:
    """See Drafter and Follower. Drafters of one host share its `client`."""

    is_free = False

    def __init__(self, name: str, max_draft_length: int, client: HostClient) -> None:
        self.name = name
        self.max_draft_length = max_draft_length
        self._client = client

    @property
    def is_away(self) -> bool:
        return self._client.is_away

    def follow(self, sequences: Sequence[ScoreRequest]) -> None:
        self._client.follow(sequences)

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return self._client.draft(self.name, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        return self._client.score(self.name, requests)

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self._client.forget(sequence_ids)
