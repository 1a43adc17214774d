"""What a head remembers of one sequence: what is cached, and the positions still to be settled."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from engine.request import SamplingParams
from engine.sampling import TokenSampler


class HeadSequence:
    """The KV of the first `num_cached` tokens, all verified, is in `block_table`.

    `state` is the head's state of the last of them: what a draft starts from. `open` are positions
    whose outcome is not known yet, ascending, the first one that was never looked at being last.
    """

    def __init__(self, prompt: Sequence[int], sampling: SamplingParams) -> None:
        self.block_table: list[int] = []
        self.num_cached = 0
        self.state: Tensor | None = None  # [hidden_size]
        self.open: list[int] = [len(prompt)]
        self._ahead = _Follower(prompt, sampling)
        self._behind = _Follower(prompt, sampling)

    def drop_cache(self) -> None:
        self.num_cached, self.state = 0, None

    def draft_sampler(self, tokens: Sequence[int]) -> TokenSampler:
        """A sampler that has seen all verified tokens, free to go on with drafted ones."""
        return self._ahead.at(len(tokens), tokens)

    def score_samplers(self, tokens: Sequence[int]) -> dict[int, TokenSampler]:
        """By position that is not settled and has a verified token: one that saw those before."""
        return {
            position: self._behind.peek(position, tokens) for position in self.unsettled(tokens)
        }

    def unsettled(self, tokens: Sequence[int]) -> list[int]:
        """The positions below len(tokens) whose outcome was not told yet."""
        return [*self.open[:-1], *range(self.open[-1], len(tokens))]

    def settle(self, tokens: Sequence[int], still_open: Sequence[int]) -> None:
        """All positions below len(tokens) are settled now, but those that are `still_open`."""
        self.open = [*still_open, max(self.open[-1], len(tokens))]
        self._behind.at(self.open[0], tokens)


class _Follower:
    """A sampler that walks along the verified tokens of a sequence."""

    def __init__(self, prompt: Sequence[int], sampling: SamplingParams) -> None:
        self._sampler = TokenSampler(sampling, prompt)
        self._num_pushed = len(prompt)

    def at(self, position: int, tokens: Sequence[int]) -> TokenSampler:
        """Walks there; a copy of the sampler."""
        for token in tokens[self._num_pushed : position]:
            self._sampler.push(token)
        self._num_pushed = max(self._num_pushed, position)
        return self._sampler.fork()

    def peek(self, position: int, tokens: Sequence[int]) -> TokenSampler:
        """A copy that went there, for a position that was not passed yet."""
        sampler = self._sampler.fork()
        for token in tokens[self._num_pushed : position]:
            sampler.push(token)
        return sampler
