"""The answer to a call, whole or as a stream of server-sent events, in an endpoint's words."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence
from typing import Protocol

from cluster.limits.usage import Usage
from deployments.call import Call
from deployments.choice import Choice, spent, usage
from deployments.errors import ApiError
from deployments.openai_schema import StreamedUsage
from engine.request import Emission

Json = dict[str, object]
DONE = b"data: [DONE]\n\n"


class Format(Protocol):
    """How one endpoint words its choices."""

    whole_object: str
    chunk_object: str

    def whole(self, index: int, choice: Choice) -> Json: ...

    def opening(self, index: int) -> Iterator[Json]: ...

    def pieces(self, index: int, emission: Emission) -> Iterator[Json]: ...


def event(content: Json) -> bytes:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def error_event(error: ApiError) -> bytes:
    return event(dict(error.body))


class Answer:
    """Collects the emissions of `call`, and words them."""

    def __init__(self, call: Call, words: Format, streamed_usage: StreamedUsage) -> None:
        self.call = call
        self._words = words
        self._streamed_usage = streamed_usage
        self._index = call.index
        self._choices = [Choice() for _ in call.requests]

    def add(self, emissions: Sequence[Emission]) -> None:
        for emission in emissions:
            self._choices[self._index[emission.sequence_id]].add(emission)

    @property
    def spent(self) -> Usage:
        """So far, for the tenant's account; nothing before the first round."""
        return spent(self._choices, self.call.num_choices)

    def whole(self) -> Json:
        choices = [self._words.whole(i, choice) for i, choice in enumerate(self._choices)]
        return self._envelope(self._words.whole_object, choices) | {"usage": self._usage()}

    async def events(
        self, rounds: AsyncIterable[Sequence[Emission]]
    ) -> AsyncGenerator[bytes, None]:
        """One write per round; `[DONE]` only after every choice is finished. Closes nothing."""
        opening = [chunk for i in range(len(self._choices)) for chunk in self._words.opening(i)]
        if opening:
            yield b"".join(self._chunk(chunk) for chunk in opening)
        async for emissions in rounds:
            self.add(emissions)
            written = b"".join(
                self._chunk(chunk)
                for emission in emissions
                for chunk in self._words.pieces(self._index[emission.sequence_id], emission)
            )
            if written:
                yield written
        if self._streamed_usage != "none":
            yield event(self._envelope(self._words.chunk_object, []) | {"usage": self._usage()})
        yield DONE

    def _chunk(self, choice: Json) -> bytes:
        content = self._envelope(self._words.chunk_object, [choice])
        if self._streamed_usage == "none":
            return event(content)
        so_far = self._usage() if self._streamed_usage == "always" else None
        return event(content | {"usage": so_far})

    def _usage(self) -> Json:
        return usage(self._choices, self.call.num_choices)

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.call.call_id,
            "object": kind,
            "created": self.call.created_s,
            "model": self.call.card.model,
            "system_fingerprint": self.call.card.fingerprint,
            "choices": choices,
        }
