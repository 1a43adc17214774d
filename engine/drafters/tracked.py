"""What a model drafter remembers of one sequence: cached tokens, predictions, what is settled."""

from __future__ import annotations

from collections.abc import Sequence

from engine.drafters.drafter import Outcome
from engine.request import SamplingParams
from engine.sampling import Row, TokenSampler


class TrackedSequence:
    """`cached` are the tokens whose KV is in `block_table`, drafted ones included.

    A prediction at position p is the drafter's token after the first p verified tokens. Predictions
    are kept for the positions from the first unsettled one to `next_prediction`, without a gap.
    """

    def __init__(self, prompt: Sequence[int], sampling: SamplingParams) -> None:
        self.cached: list[int] = []
        self.block_table: list[int] = []
        self.next_prediction = len(prompt)
        self._predictions: dict[int, int] = {}
        self._sampler = TokenSampler(sampling, prompt)
        self._num_pushed = self._num_seen = self._num_settled = len(prompt)

    def sync(self, tokens: Sequence[int]) -> None:
        """Learns which drafted tokens were verified; drops what followed the first wrong one."""
        right = self._num_seen
        while right < min(len(tokens), self.next_prediction) and self.is_right(right, tokens):
            right += 1
        for position in range(right + 1, self.next_prediction):
            del self._predictions[position]  # what followed a wrong draft, or an unused one
        self.next_prediction = min(self.next_prediction, right + 1)
        del self.cached[right:]
        self._num_seen = len(tokens)

    def predict(self, row: Row, tokens: Sequence[int]) -> None:
        """Samples the next prediction from the logits after the tokens before it."""
        position = self.next_prediction
        self._push_until(position, tokens)
        self._predictions[position] = self._sampler.sample(row, position)
        self.next_prediction += 1

    def note_draft(self, token: int) -> None:
        """Keeps a drafted token as the prediction that it is, if the drafts before it are right."""
        self._predictions[self.next_prediction] = token
        self.next_prediction += 1

    def first_draft(self, tokens: Sequence[int]) -> int:
        return self._predictions[len(tokens)]

    def draft_sampler(self, tokens: Sequence[int]) -> TokenSampler:
        """A sampler that has seen all verified tokens, free to go on with drafted ones."""
        self._push_until(len(tokens), tokens)
        return self._sampler.fork()

    def is_right(self, position: int, tokens: Sequence[int]) -> bool:
        return self._predictions[position] == tokens[position]

    def settle(self, tokens: Sequence[int], longest: int, finished: bool) -> list[Outcome]:
        """Outcomes of the positions whose accept length is known now, each once."""
        outcomes = []
        end = self._num_settled
        while self._num_settled < len(tokens):
            start = self._num_settled
            end = max(end, start)
            while end < min(len(tokens), start + longest) and self.is_right(end, tokens):
                end += 1
            is_open = end == len(tokens) and end - start < longest
            if is_open and not finished:
                break
            outcomes.append(Outcome(start, longest, end - start, censored=is_open))
            del self._predictions[start]
            self._num_settled += 1
        return outcomes

    def _push_until(self, position: int, tokens: Sequence[int]) -> None:
        for token in tokens[self._num_pushed : position]:
            self._sampler.push(token)
        self._num_pushed = max(self._num_pushed, position)
