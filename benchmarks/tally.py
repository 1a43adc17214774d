"""What one mode did on one prompt set, over all repeats."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.spread import Spread
from benchmarks.workbench import Run


@dataclass(slots=True)
class Tally:
    """Seconds per token by repeat and prompt, every prompt counting the same; and counts."""

    token_s: list[list[float]] = field(default_factory=list)
    overhead_ms: list[float] = field(default_factory=list)  # of a round, by run
    num_decoded: int = 0
    num_rounds: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_different: int = 0

    def add(self, repeat: int, run: Run, is_different: bool) -> None:
        if repeat == len(self.token_s):
            self.token_s.append([])
        self.token_s[repeat].append(run.total_s / run.num_tokens)
        if run.num_rounds:
            self.overhead_ms.append(run.overhead_s / run.num_rounds * 1e3)
        self.num_decoded += run.num_decoded
        self.num_rounds += run.num_rounds
        self.num_draft_tokens += run.num_draft_tokens
        self.num_accepted_tokens += run.num_accepted_tokens
        self.num_different += is_different

    @property
    def tokens_per_s(self) -> Spread:
        return self._over_prompts(lambda mine, _: len(mine) / sum(mine), self)

    def speedup_over(self, other: Tally) -> Spread:
        """Of the same prompts in the same repeats."""
        return self._over_prompts(lambda mine, theirs: sum(theirs) / sum(mine), other)

    @property
    def mean_acceptance_length(self) -> float:
        return self.num_decoded / self.num_rounds if self.num_rounds else 1.0

    @property
    def acceptance(self) -> float:
        return self.num_accepted_tokens / self.num_draft_tokens if self.num_draft_tokens else 0.0

    def _over_prompts(
        self, figure: Callable[[list[float], list[float]], float], other: Tally
    ) -> Spread:
        """The figure from each prompt's median over the repeats, and its range over the repeats."""
        theirs = other.token_s[: len(self.token_s)]
        by_repeat = [figure(a, b) for a, b in zip(self.token_s, theirs, strict=True)]
        middle = figure(_medians(self.token_s), _medians(theirs))
        return Spread(middle, min(by_repeat), max(by_repeat))


def _medians(token_s: list[list[float]]) -> list[float]:
    """By prompt."""
    return [statistics.median(times) for times in zip(*token_s, strict=True)]
