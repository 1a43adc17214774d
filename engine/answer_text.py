"""The text of one answer as it grows: complete characters, cut at the first stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """Turns token ids into text piece by piece; see engine.detokenizer."""

    def push(self, token_id: int) -> str: ...

    def flush(self) -> str: ...


class AnswerText:
    """Text not handed out yet. What could become a stop string is held back until it cannot."""

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str]) -> None:
        self._detokenizer = detokenizer
        self._stops = stops
        self._pending = ""
        self.is_stopped = False

    def push(self, token_id: int, may_stop: bool) -> None:
        """Adds a token; if it may, a stop string that is now complete sets `is_stopped`."""
        self._add(self._detokenizer.push(token_id), may_stop)

    def take(self) -> str:
        """Text that no later token can change."""
        size = len(self._pending) if self.is_stopped else len(self._pending) - self._num_held()
        text, self._pending = self._pending[:size], self._pending[size:]
        return text

    def finish(self) -> str:
        """All that is left, at the end of the answer."""
        if not self.is_stopped:
            self._add(self._detokenizer.flush(), may_stop=True)
        text, self._pending = self._pending, ""
        return text

    def _add(self, piece: str, may_stop: bool) -> None:
        before = len(self._pending)
        self._pending += piece
        if not (piece and may_stop):
            return
        starts = ((stop, max(0, before - len(stop) + 1)) for stop in self._stops)  # ends in `piece`
        found = [at for stop, start in starts if (at := self._pending.find(stop, start)) >= 0]
        if found:
            self._pending = self._pending[: min(found)]
            self.is_stopped = True

    def _num_held(self) -> int:
        """Length of the longest end of the pending text that begins some stop string."""
        held = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(self._pending)), held, -1):
                if self._pending.endswith(stop[:size]):
                    held = size
                    break
        return held
