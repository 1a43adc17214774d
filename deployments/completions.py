"""The words of /v1/completions: choices, chunks and log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deployments.answer import Json
from deployments.choice import Choice
from deployments.token_names import token_name
from engine.request import Emission, TokenLogprob
from engine.text import Text


class CompletionFormat:
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, text: Text, has_logprobs: bool) -> None:
        self._text = text
        self._has_logprobs = has_logprobs
        self._offsets: dict[int, _Offsets] = {}

    def whole(self, index: int, choice: Choice) -> Json:
        return self._chunk(index, choice.text, choice.logprobs, choice.finish_reason)

    def opening(self, index: int) -> Iterator[Json]:
        yield from ()

    def pieces(self, index: int, emission: Emission) -> Iterator[Json]:
        if emission.text or emission.logprobs or emission.finish_reason is not None:
            yield self._chunk(index, emission.text, emission.logprobs, emission.finish_reason)

    def _chunk(
        self, index: int, text: str, logprobs: Sequence[TokenLogprob], finish_reason: str | None
    ) -> Json:
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, logprobs) if self._has_logprobs else None,
            "finish_reason": finish_reason,
        }

    def _logprobs(self, index: int, logprobs: Sequence[TokenLogprob]) -> Json:
        offsets = self._offsets.setdefault(index, _Offsets(self._text))
        return {
            "tokens": [token_name(self._text, item.token_id) for item in logprobs],
            "token_logprobs": [item.logprob for item in logprobs],
            "top_logprobs": [self._top(item) for item in logprobs],
            "text_offset": [offsets.advance(item.token_id) for item in logprobs],
        }

    def _top(self, item: TokenLogprob) -> dict[str, float]:
        """By name, the chosen token included; of two tokens of one name the likelier."""
        named: dict[str, float] = {}
        for token_id, logprob in (*item.top, (item.token_id, item.logprob)):
            named.setdefault(token_name(self._text, token_id), logprob)
        return named


class _Offsets:
    """Where each token of a choice starts in its text, in characters."""

    def __init__(self, text: Text) -> None:
        self._detokenizer = text.detokenizer()
        self._offset = 0

    def advance(self, token_id: int) -> int:
        start = self._offset
        self._offset += len(self._detokenizer.push(token_id))
        return start
