"""The one primitive: extend sequences by new tokens, get logits at the positions asked for.

Prefill, decoding, verification, a drafter's steps and its catch-up are all `extend`. The runner
keeps no state of sequences: positions and blocks are arguments, so rolling back is passing a
smaller start. It does not check that earlier positions were computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from engine.attention import AttentionBatch, KVCache, Span
from engine.config import Numerics
from engine.linear import FAST_MIN_ROWS


@dataclass(frozen=True, slots=True)
class Extension:
    """`tokens` from position `start` on, KV going to `block_table`; logits of the last few.

    `num_logits` counts from the end: 0 none, 1 the last token's, len(tokens) all.
    """

    tokens: Sequence[int]
    start: int
    block_table: Sequence[int]
    num_logits: int


class Logits:
    """Float32 logits of one forward, extension after extension: [num_rows, vocab]."""

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows
        self._greedy: NDArray[np.intp] | None = None
        self._array: NDArray[np.float32] | None = None

    def greedy(self, row: int) -> int:
        """argmax of a row, ties to the lowest id; all rows are computed at the first call."""
        if self._greedy is None:
            self._greedy = self._rows.argmax(-1).cpu().numpy()
        return int(self._greedy[row])

    def row(self, row: int) -> NDArray[np.float32]:
        """Read-only [vocab]; copied from the device at the first call."""
        if self._array is None:
            self._array = self._rows.float().cpu().numpy()
        found: NDArray[np.float32] = self._array[row]
        return found


class ModelRunner:
    """Runs one model on one device over one paged KV cache."""

    def __init__(self, model: PreTrainedModel, cache: KVCache, numerics: Numerics) -> None:
        self.vocab_size = int(model.config.get_text_config().vocab_size)
        self._model = model
        self._cache = cache
        self._numerics: Numerics = numerics
        is_padded = numerics == "fast" and model.device.type == "cpu"
        self._min_tokens = FAST_MIN_ROWS if is_padded else 1

    @torch.inference_mode()
    def extend(self, extensions: Sequence[Extension]) -> Logits:
        """One forward over all new tokens; logits rows follow the order of the extensions."""
        spans = [Span(e.start, len(e.tokens), e.block_table) for e in extensions]
        tokens = [token for e in extensions for token in e.tokens]
        positions = [p for span in spans for p in range(span.start, span.end)]
        wanted: list[int] = []
        total = 0
        for e in extensions:
            total += len(e.tokens)
            wanted.extend(range(total - e.num_logits, total))
        device = self._model.device
        padding = [0] * (self._min_tokens - total)
        batch = AttentionBatch(spans, self._cache, self._numerics)
        forward = partial(
            self._model,
            input_ids=torch.tensor([tokens + padding], device=device),
            position_ids=torch.tensor([positions + padding], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(wanted, dtype=torch.long, device=device),
            batch=batch,
        )
        output = forward()
        if batch.has_nan:  # its own, or of a key that it should not have seen
            batch.careful = True
            output = forward()
        return Logits(output.logits[0])
