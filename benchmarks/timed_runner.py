"""A model runner with a stopwatch, to tell the forward from what the engine adds to it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.runner import Extension, Logits, ModelRunner


class TimedRunner(ModelRunner):
    """Adds up the seconds of every `extend` of another runner."""

    def __init__(self, inner: ModelRunner) -> None:
        self.vocab_size = inner.vocab_size
        self.hidden_states = inner.hidden_states
        self.forward_s = 0.0
        self._inner = inner

    def extend(self, extensions: Sequence[Extension]) -> Logits:
        started = time.perf_counter()
        logits = self._inner.extend(extensions)
        self.forward_s += time.perf_counter() - started
        return logits
