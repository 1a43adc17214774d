"""The words of /v1/chat/completions: choices, chunks and log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deployments.answer import Json
from deployments.choice import Choice
from deployments.token_names import token_name
from engine.request import Emission, TokenLogprob
from engine.text import Text


class ChatFormat:
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, text: Text, has_logprobs: bool) -> None:
        self._text = text
        self._has_logprobs = has_logprobs

    def whole(self, index: int, choice: Choice) -> Json:
        return {
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": self._logprobs(choice.logprobs),
            "finish_reason": choice.finish_reason,
        }

    def opening(self, index: int) -> Iterator[Json]:
        yield self._chunk(index, {"role": "assistant", "content": ""})

    def pieces(self, index: int, emission: Emission) -> Iterator[Json]:
        if emission.text or emission.logprobs:
            chunk = self._chunk(index, {"content": emission.text})
            yield {**chunk, "logprobs": self._logprobs(emission.logprobs)}
        if emission.finish_reason is not None:
            yield {**self._chunk(index, {}), "finish_reason": emission.finish_reason}

    @staticmethod
    def _chunk(index: int, delta: Json) -> Json:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> Json | None:
        if not self._has_logprobs:
            return None
        content = []
        for item in logprobs:
            top = [self._entry(token_id, logprob) for token_id, logprob in item.top]
            content.append({**self._entry(item.token_id, item.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _entry(self, token_id: int, logprob: float) -> Json:
        return {
            "token": token_name(self._text, token_id),
            "logprob": logprob,
            "bytes": list(self._text.token_bytes(token_id)),
        }
