"""The one primitive: extend sequences by new tokens, get logits at the positions asked for.

Prefill, decoding, verification, a drafter's steps and its catch-up are all `extend`. The runner
keeps no state of sequences: positions and blocks are arguments, so rolling back is passing a
smaller start. It does not check that earlier positions were computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from engine.attention import AttentionBatch, new_batch
from engine.config import Numerics
from engine.draws import Draw, draw_rows, find_search
from engine.errors import ModelRefusedError
from engine.hidden_states import HiddenStates
from engine.kv_cache import KVCache, Span
from engine.linear import fewest_rows
from engine.packed_batch import PackedBatch, Packer
from engine.packed_forward import Output, PackedForward
from engine.reduced_vocabulary import ReducedVocabulary
from engine.sampling import TokenSampler
from engine.span_attention import SpanBatch


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
    """Float32 logits of one forward, extension after extension: [num_rows, vocab].

    With a `vocabulary`, `rows` has its ids only, and everything else is impossible.
    """

    def __init__(
        self,
        rows: torch.Tensor,
        states: torch.Tensor | None = None,
        vocabulary: ReducedVocabulary | None = None,
    ) -> None:
        self._rows = rows
        self._states = states
        self._vocabulary = vocabulary
        self._greedy: NDArray[np.intp] | None = None
        self._array: NDArray[np.float32] | None = None
        self._drawn: dict[int, int] = {}

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    @property
    def states(self) -> torch.Tensor:
        """The hidden states that the rows were computed from: [num_rows, hidden_size]."""
        assert self._states is not None, "this runner keeps no states of its rows"
        return self._states

    def greedy(self, row: int) -> int:
        """argmax of a row, ties to the lowest id; all rows are computed at the first call."""
        if self._greedy is None:
            found = _largest(self._rows)
            self._greedy = found if self._vocabulary is None else self._vocabulary.ids[found]
        return int(self._greedy[row])

    def row(self, row: int) -> NDArray[np.float32]:
        """Read-only, of the ids that there are; copied from the device at the first call."""
        if self._array is None:
            self._array = self._rows.float().cpu().numpy()
        found: NDArray[np.float32] = self._array[row]
        return found

    def draw_ahead(self, draws: Sequence[Draw]) -> None:
        """Says what every row will be asked for, which a device may find for all at once."""
        search = find_search(self._rows)
        if search is not None and self._vocabulary is None:
            self._drawn = draw_rows(self._rows, draws, search)

    def draw(self, row: int, sampler: TokenSampler, position: int) -> int:
        """The token at `position`, as `sampler` draws it from a row."""
        if sampler.is_plain_greedy:
            return self.greedy(row)
        if row in self._drawn:
            return self._drawn[row]
        return sampler.sample(self.row(row), position, self._vocabulary)

    def log_probs(self, tokens: Sequence[int]) -> torch.Tensor:
        """Natural log-probability of one token for each row, unprocessed: [num_rows]."""
        places = self._vocabulary.places(tokens) if self._vocabulary is not None else tokens
        index = torch.as_tensor(places, device=self._rows.device)
        return self._rows.float().log_softmax(-1).gather(-1, index[:, None])[:, 0]

    def top_probabilities(self) -> torch.Tensor:
        """Probability of each row's likeliest token, unprocessed: [num_rows]."""
        rows = self._rows.float()
        return (rows.amax(-1) - rows.logsumexp(-1)).exp()


def _largest(rows: torch.Tensor) -> NDArray[np.intp]:
    """argmax of each row. On a CPU by numpy: torch would wake threads for it, which then spin."""
    is_read_as_is = rows.device.type == "cpu" and rows.dtype == torch.float32
    found: NDArray[np.intp] = (
        rows.numpy().argmax(-1) if is_read_as_is else rows.argmax(-1).cpu().numpy()
    )
    return found


class _LastStates:
    """A forward hook that takes what the layers gave to the output layer, which costs nothing."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._states: torch.Tensor | None = None
        if model.base_model is model:
            raise ModelRefusedError(str(model.config.model_type), "its layers have no base model")
        model.base_model.register_forward_hook(self)

    def take(self) -> torch.Tensor:
        """[num_tokens, hidden_size] of the last forward, once."""
        states, self._states = self._states, None
        assert states is not None, "the model runs its base model"
        return states[0]

    def __call__(self, module: object, arguments: object, output: Any) -> None:
        self._states = output[0]


class ModelRunner:
    """Runs one model on one device over one paged KV cache.

    A model whose output is a `vocabulary` has one more input and output for all other ids.
    """

    hidden_states: HiddenStates | None = None
    """Where the last hidden states go, if somebody wants them (`keep_hidden_states`)."""

    def __init__(
        self,
        model: PreTrainedModel,
        cache: KVCache,
        numerics: Numerics,
        vocabulary: ReducedVocabulary | None = None,
    ) -> None:
        own_size = int(model.config.get_text_config().vocab_size)
        self.vocab_size = own_size if vocabulary is None else vocabulary.full_size
        self._vocabulary = vocabulary
        self._model = model
        self._last = _LastStates(model) if vocabulary is not None else None
        self._cache = cache
        self._numerics: Numerics = numerics
        self._min_tokens = fewest_rows(model)
        num_heads = getattr(model.config.get_text_config(), "num_attention_heads", 1)
        self._packer = Packer.find(cache, numerics, num_heads)
        self._packed = self._new_packed()

    def _new_packed(self) -> PackedForward | None:
        """None where there is no kernel."""
        if self._packer is None:
            return None
        return PackedForward.on_device(self._forward, self._packer)

    def keep_hidden_states(self) -> HiddenStates:
        """From now on every forward stores the last hidden state of every token."""
        if self.hidden_states is None:
            embedding = self._model.get_input_embeddings().weight
            assert isinstance(embedding, torch.Tensor)
            size = int(self._model.config.get_text_config().hidden_size)
            cache = self._cache
            self.hidden_states = HiddenStates(cache.num_blocks, cache.block_size, size, embedding)
            self._last = self._last or _LastStates(self._model)
            self._packed = self._new_packed()  # what is recorded has no states
        return self.hidden_states

    @torch.inference_mode()
    def extend(self, extensions: Sequence[Extension]) -> Logits:
        """One forward over all new tokens; logits rows follow the order of the extensions."""
        spans = [Span(e.start, len(e.tokens), e.block_table) for e in extensions]
        tokens = [token for e in extensions for token in e.tokens]
        if self._vocabulary is not None:
            tokens = self._vocabulary.places(tokens).tolist()
        wanted: list[int] = []
        total = 0
        for e in extensions:
            total += len(e.tokens)
            wanted.extend(range(total - e.num_logits, total))
        keep = torch.tensor(wanted, dtype=torch.long, device=self._model.device)
        with self._cache.threads():
            if self._packed is None:
                output = self._run_tiles(spans, tokens, keep)
            else:
                output = self._packed.run(spans, tokens, keep)
        return self._logits(output, keep)

    def _run_tiles(
        self, spans: Sequence[Span], tokens: Sequence[int], keep: torch.Tensor
    ) -> Output:
        padding = [0] * (self._min_tokens - len(tokens))
        batch = new_batch(spans, self._cache, self._numerics, len(padding))
        positions = [p for span in spans for p in range(span.start, span.end)]
        ids, at = (
            torch.tensor([*numbers, *padding], device=self._model.device)
            for numbers in (tokens, positions)
        )
        output = self._forward(ids, at, batch, keep)
        if (
            isinstance(batch, AttentionBatch) and batch.has_nan
        ):  # its own, or of a key that it should not have seen
            batch.careful = True
            output = self._forward(ids, at, batch, keep)
        return output

    def _forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        batch: AttentionBatch | SpanBatch | PackedBatch,
        keep: torch.Tensor | int,
    ) -> Output:
        """Logits of the tokens `keep`, 0 standing for all, and states if somebody wants them."""
        output = self._model(
            input_ids=tokens[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=keep,
            batch=batch,
        )
        states = None if self._last is None else self._last.take()
        return Output(output.logits[0], states, batch.slots)

    def _logits(self, output: Output, keep: torch.Tensor) -> Logits:
        rows, states, slots = output.rows, output.states, output.slots
        if states is None:
            return Logits(rows)
        if self.hidden_states is not None:
            self.hidden_states.write(slots, states[: len(slots)])
        if self._vocabulary is None:
            return Logits(rows, states.index_select(0, keep))
        rows = rows[:, : len(self._vocabulary)]
        return Logits(rows, states.index_select(0, keep), self._vocabulary)
