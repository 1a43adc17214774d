"""What a model drafter remembers of one sequence: cached tokens, predictions, what is settled."""

from __future__ import annotations

from collections.abc import Sequence

from engine.drafters.drafter import Outcome
from engine.drafters.stopping import Stopping
from engine.request import SamplingParams
from engine.runner import Logits
from engine.sampling import TokenSampler


class TrackedSequence:
    """`cached` are the tokens whose KV is in `block_table`, drafted ones included.

    A prediction at position p is the drafter's token after the first p tokens, verified ones or,
    beyond those, its own predictions. Predictions are kept for the positions from the first
    unsettled one to `next_prediction`, without a gap, and so is the evidence of each, where the
    drafter has any.
    """

    def __init__(self, prompt: Sequence[int], sampling: SamplingParams) -> None:
        self.cached: list[int] = []
        self.block_table: list[int] = []
        self.next_prediction = len(prompt)
        self._predictions: dict[int, int] = {}
        self._evidence: dict[int, float] = {}
        self._sampler = TokenSampler(sampling, prompt)
        self._num_pushed = self._num_seen = len(prompt)
        self._open: list[int] = []  # seen, but not settled
        self._num_settled = len(prompt)  # all positions below are settled or open

    def drop_cache(self) -> None:
        self.cached = []
        self._drop_behind(self._num_seen)

    def sync(self, tokens: Sequence[int]) -> None:
        """Learns which drafted tokens were verified; drops what followed the first wrong one.

        While none was wrong, what was drafted beyond `tokens` still follows from them.
        """
        right = self._num_seen
        while right < min(len(tokens), self.next_prediction) and self.is_right(right, tokens):
            right += 1
        if right < len(tokens):
            self._drop_behind(right)
            del self.cached[right:]
        self._num_seen = len(tokens)

    def predict(self, logits: Logits, row: int, tokens: Sequence[int]) -> int:
        """Draws the next prediction from the logits after the tokens before it."""
        position = self.next_prediction
        self._push_until(position, tokens)
        token = logits.draw(row, self._sampler, position)
        self._predictions[position] = token
        self.next_prediction += 1
        return token

    def note_draft(self, token: int) -> None:
        """Keeps a drafted token as the next prediction."""
        self._predictions[self.next_prediction] = token
        self.next_prediction += 1

    def note_evidence(self, position: int, evidence: float) -> None:
        """What the drafter knew of its prediction there."""
        self._evidence[position] = evidence

    def prediction(self, position: int) -> int:
        return self._predictions[position]

    def evidence(self, start: int, end: int) -> list[float]:
        return [self._evidence[position] for position in range(start, end)]

    def draft_sampler(self, tokens: Sequence[int]) -> TokenSampler:
        """A sampler that has seen all verified tokens, free to go on with drafted ones."""
        self._push_until(len(tokens), tokens)
        return self._sampler.fork()

    def is_right(self, position: int, tokens: Sequence[int]) -> bool:
        return self._predictions[position] == tokens[position]

    def settle(
        self, tokens: Sequence[int], longest: int, finished: bool, stopping: Stopping | None
    ) -> list[Outcome]:
        """Outcomes of the positions whose accept length is known now, each once."""
        outcomes, still_open, end = [], [], 0
        for start in [*self._open, *range(self._num_settled, len(tokens))]:
            end = max(end, start)
            while end < min(len(tokens), start + longest) and self.is_right(end, tokens):
                end += 1
            stop = None if stopping is None else stopping.stop_in(self.evidence(start, end))
            accepted = end - start if stop is None else stop
            is_open = stop is None and end == len(tokens) and accepted < longest
            if is_open and not finished:
                still_open.append(start)
            else:
                outcomes.append(Outcome(start, longest, accepted, censored=is_open))
        first = min([*still_open, len(tokens)])
        for position in range(min([*self._open, self._num_settled]), first):
            self._drop(position)
        self._open, self._num_settled = still_open, max(self._num_settled, len(tokens))
        return outcomes

    def _drop_behind(self, position: int) -> None:
        for later in range(position + 1, self.next_prediction):
            self._drop(later)
        self.next_prediction = min(self.next_prediction, position + 1)

    def _drop(self, position: int) -> None:
        self._predictions.pop(position, None)
        self._evidence.pop(position, None)

    def _push_until(self, position: int, tokens: Sequence[int]) -> None:
        for token in tokens[self._num_pushed : position]:
            self._sampler.push(token)
        self._num_pushed = max(self._num_pushed, position)
