"""How far an answer is, so that another target can go on with it as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace

from engine.request import Emission, GenerationRequest, SpeculationUse


class Progress:
    """One sequence: what is known of it from all targets that had it.

    The token at a position is a function of the text before it, the seed and the position, and the
    text of an answer is a function of its tokens: so the emitted ids are all that must go along.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._emitted_ids = list(request.emitted_ids)
        self._earlier_use = SpeculationUse()
        self._use = SpeculationUse()
        self._num_cached_tokens: int | None = None
        self.is_finished = False

    @property
    def num_emitted(self) -> int:
        return len(self._emitted_ids)

    def remaining(self, attempt: int) -> GenerationRequest:
        """The rest of it, under ids of its own: the first target may still have the old ones."""
        self._earlier_use = self._use
        leader_id = self._request.leader_id
        return replace(
            self._request,
            sequence_id=attempt_id(self._request.sequence_id, attempt),
            leader_id=None if leader_id is None else attempt_id(leader_id, attempt),
            emitted_ids=tuple(self._emitted_ids),
        )

    def add(self, emission: Emission) -> Emission:
        """Of the latest attempt, as one target would have said it that had it all along."""
        self._emitted_ids += emission.token_ids
        self._use = self._earlier_use + emission.use
        if self._num_cached_tokens is None:
            self._num_cached_tokens = emission.num_cached_tokens
        self.is_finished = emission.finish_reason is not None
        return replace(
            emission,
            sequence_id=self._request.sequence_id,
            num_cached_tokens=self._num_cached_tokens,
            use=self._use,
        )


def attempt_id(sequence_id: str, attempt: int) -> str:
    return f"{sequence_id}~{attempt}" if attempt else sequence_id
