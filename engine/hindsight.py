"""What hearing of drafters that were not chosen says, and takes: counts by drafter.

At rounds where another drafter was scored too, its accept length beside that of the arm that was
chosen is regret in tokens, exact for those rounds, which are a sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.counters import DrafterHindsight
from engine.drafters.drafter import Outcome
from policies.selector import Decision


@dataclass(slots=True)
class Evaluation:
    """A decision that wants a drafter evaluated; `num_chosen` is what the chosen arm had accepted,
    None while, or because, that draft was never made."""

    decision: Decision
    num_chosen: int | None = None


@dataclass(slots=True)
class _Tally:
    num_evaluations: int = 0
    seconds: float = 0.0
    num_compared: int = 0
    num_accepted: int = 0
    num_accepted_of_chosen: int = 0
    heard_at: int = 0  # the number of decisions then


class Hindsight:
    """`names` are those of the first drafters; others may come, and those that go stay counted."""

    def __init__(self, names: Iterable[str]) -> None:
        self._tallies = {name: _Tally() for name in names}
        self._num_decisions = 0

    @property
    def per_drafter(self) -> dict[str, DrafterHindsight]:
        return {
            name: DrafterHindsight(
                tally.num_evaluations,
                tally.seconds,
                tally.num_compared,
                tally.num_accepted,
                tally.num_accepted_of_chosen,
                self._num_decisions - tally.heard_at,
            )
            for name, tally in self._tallies.items()
        }

    def count_decision(self) -> None:
        """Of a learner."""
        self._num_decisions += 1

    def hear(self, name: str) -> None:
        """A learner was told an outcome of this drafter."""
        self._tally(name).heard_at = self._num_decisions

    def count_scoring(self, name: str, num_settled: int, seconds: float) -> None:
        tally = self._tally(name)
        tally.num_evaluations += num_settled
        tally.seconds += seconds

    def compare(self, name: str, evaluation: Evaluation, scored: Outcome) -> None:
        if evaluation.num_chosen is None:
            return
        tally = self._tally(name)
        tally.num_compared += 1
        tally.num_accepted += scored.accept_length
        tally.num_accepted_of_chosen += evaluation.num_chosen

    def _tally(self, name: str) -> _Tally:
        return self._tallies.setdefault(name, _Tally(heard_at=self._num_decisions))
