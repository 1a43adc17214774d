"""One choice being generated: its verified tokens, its blocks, and what the next round needs."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import replace

from engine.answer_text import AnswerText
from engine.block_pool import chain_hash, salt_of
from engine.hidden_states import CachedPast, HiddenStates
from engine.request import FinishReason, GenerationRequest
from engine.sampling import TokenSampler
from engine.usage import Usage


class Sequence:
    """State of a live request.

    `tokens` are verified, always. The KV of the first `num_computed` of them is in the blocks; the
    next forward computes the rest (`num_pending`, one while decoding). Rolling back a rejected
    draft needs nothing: `num_computed` simply never advances over it.
    """

    def __init__(
        self,
        request: GenerationRequest,
        text: AnswerText,
        end_ids: Items[int],
        max_length: int,
        hidden_states: HiddenStates | None = None,
    ) -> None:
        masked_ids = tuple(sorted(set(end_ids)))
        self.request = replace(request, sampling=replace(request.sampling, masked_ids=masked_ids))
        self.id = request.sequence_id
        self.tokens = list(request.prompt_ids)
        self.num_prompt_tokens = len(self.tokens)
        self.end_ids = frozenset(end_ids)
        self.sampler = TokenSampler(self.request.sampling, self.tokens)
        self.text = text
        self.usage = Usage()
        self.block_table: list[int] = []
        self.num_computed = 0
        self.arrival = 0  # its number among all that came
        self.num_cached_tokens: int | None = None  # of the prompt, at first admission
        self.finish_reason: FinishReason | None = None
        self._max_tokens = min(request.max_tokens, max_length - self.num_prompt_tokens)
        self._hashes: list[bytes] = []
        self._hidden_states = hidden_states
        for token in request.emitted_ids:
            self._go_on_behind(token)

    def _go_on_behind(self, token: int) -> None:
        """A token that was said elsewhere, text and all."""
        self.sampler.push(token)
        self.append(token)
        self.text.take()

    @property
    def num_pending(self) -> int:
        return len(self.tokens) - self.num_computed

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def past(self) -> CachedPast | None:
        """Hidden states of what is computed, if the target keeps them."""
        if self._hidden_states is None:
            return None
        return CachedPast(self._hidden_states, self.block_table, self.num_computed)

    @property
    def max_useful_draft(self) -> int:
        """Longest draft that can be accepted: the bonus token follows it."""
        return max(0, self._max_tokens - self.num_generated - 1)

    def may_use(self, drafter: str) -> bool:
        """Whether the request allows this drafter."""
        allowed = self.request.speculation.drafters
        return allowed is None or drafter in allowed

    def append(self, token: int) -> None:
        """Adds a verified token, and finishes the sequence if it ends there."""
        self.tokens.append(token)
        may_end = self.num_generated >= self.request.sampling.min_tokens
        if token in self.end_ids:  # masked before min_tokens
            self.finish_reason = "stop"
            return
        self.text.push(token, may_end)
        if self.text.is_stopped:
            self.finish_reason = "stop"
        elif self.num_generated >= self._max_tokens:
            self.finish_reason = "length"

    def hashes(self, num_blocks: int, block_size: int) -> Items[bytes]:
        """Chained hashes of the first `num_blocks` blocks of verified tokens."""
        while len(self._hashes) < num_blocks:
            previous = self._hashes[-1] if self._hashes else salt_of(self.request.tenant)
            start = len(self._hashes) * block_size
            self._hashes.append(chain_hash(previous, self.tokens[start : start + block_size]))
        return self._hashes[:num_blocks]
