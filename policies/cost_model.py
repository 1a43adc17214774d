"""What each arm costs now, from measured times: the marginal seconds at the present batch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from policies.arms import Arms, Floats
from policies.robust import fit_linear
from policies.selector import Load
from policies.step_curve import StepCurve, StepTime

_KEPT_CALLS = 128
_REFIT_EVERY = 16  # measured calls
_KEPT_DRAFTS = 0.98  # of the mean number of draft tokens in a step, with every step
_KEPT_EVALUATIONS = 0.95  # of what is known of scoring, with every call


@dataclass(frozen=True, slots=True)
class DraftTime:
    """One measured call of a drafter: sequences, longest draft asked for, all draft tokens, and
    the seconds that the step waited for it (transport included)."""

    drafter: str
    num_sequences: int
    draft_length: int
    num_tokens: int
    seconds: float


class _CallCost:
    """Seconds of a call + per token of its longest draft + per draft token, all >= 0."""

    def __init__(self) -> None:
        self._calls: deque[DraftTime] = deque(maxlen=_KEPT_CALLS)
        self._num_unfitted = 0
        self._weights: Floats = np.zeros(3)

    def observe(self, call: DraftTime) -> None:
        self._calls.append(call)
        self._num_unfitted += 1
        if self._num_unfitted >= _REFIT_EVERY or len(self._calls) < _REFIT_EVERY:
            self._num_unfitted = 0
            features = [(1, c.draft_length, c.num_tokens) for c in self._calls]
            seconds = np.array([c.seconds for c in self._calls])
            self._weights = fit_linear(np.array(features, np.float64), seconds)

    def seconds(self, lengths: Floats, num_sequences: int) -> Floats:
        """One sequence's part of a call that all sequences share, by its draft length."""
        call, per_length, per_token = self._weights
        shared = (call + per_length * lengths) / num_sequences
        return np.asarray(np.where(lengths > 0, shared + per_token * lengths, 0.0))


class _EvaluationCost:
    """Mean seconds of scoring one position, fading."""

    def __init__(self) -> None:
        self._num_positions = self._seconds = 0.0

    def observe(self, num_positions: int, seconds: float) -> None:
        self._num_positions = _KEPT_EVALUATIONS * self._num_positions + num_positions
        self._seconds = _KEPT_EVALUATIONS * self._seconds + seconds

    @property
    def mean_s(self) -> float:
        return self._seconds / self._num_positions


class CostModel:
    """What was measured: target steps, drafters' calls, evaluations. Knows no arms.

    A draft of k adds T(n + k) - T(n) to the step, where n is what the step holds anyway: the
    load's tokens and the drafts that the other sequences bring as a rule.
    """

    def __init__(self) -> None:
        self._curve = StepCurve()
        self._calls: dict[str, _CallCost] = {}
        self._evaluations: dict[str, _EvaluationCost] = {}
        self._drafts_per_sequence = 0.0

    def observe_step(self, step: StepTime, num_draft_tokens: int) -> None:
        self._curve.observe(step)
        mean = num_draft_tokens / max(step.num_sequences, 1)
        self._drafts_per_sequence += (1 - _KEPT_DRAFTS) * (mean - self._drafts_per_sequence)

    def observe_draft(self, call: DraftTime) -> None:
        self._calls.setdefault(call.drafter, _CallCost()).observe(call)

    def observe_evaluation(self, drafter: str, num_positions: int, seconds: float) -> None:
        """One call that scored `drafter` at `num_positions` positions, of any sequences."""
        if num_positions:
            cost = self._evaluations.setdefault(drafter, _EvaluationCost())
            cost.observe(num_positions, seconds)

    def step_seconds(self, num_draft_tokens: Floats, load: Load) -> tuple[float, Floats]:
        """The sequence's share of a plain step, and what drafts of these lengths add to it."""
        if not self._curve.is_fitted:
            return 1.0, np.zeros(len(num_draft_tokens))
        sequences, kv = load.num_sequences, load.num_kv_entries
        others = load.num_tokens + self._drafts_per_sequence * (sequences - 1)
        steps = self._curve.seconds(np.r_[others, others + num_draft_tokens], sequences, kv)
        plain = self._curve.seconds(np.array([float(load.num_tokens)]), sequences, kv)[0]
        return float(plain / sequences), steps[1:] - steps[0]

    def draft_seconds(self, drafter: str | None, lengths: Floats, num_sequences: int) -> Floats:
        """One sequence's part of drafting this many tokens; 0 while nothing was measured."""
        call = self._calls.get(drafter) if drafter else None
        return call.seconds(lengths, num_sequences) if call else np.zeros(len(lengths))

    def evaluation_seconds(self, drafter: str | None, length: int, num_sequences: int) -> float:
        """Of scoring at one position; until that was measured, of drafting to full length there."""
        cost = self._evaluations.get(drafter) if drafter else None
        if cost is not None:
            return cost.mean_s
        return float(self.draft_seconds(drafter, np.array([float(length)]), num_sequences)[0])


class ArmPrices:
    """`Prices` of these arms as measured so far; until a step is, no arm costs more than none."""

    def __init__(self, costs: CostModel, arms: Arms) -> None:
        self._costs = costs
        self._arms = arms

    def seconds(self, load: Load) -> Floats:
        lengths = np.arange(self._arms.max_length + 1, dtype=np.float64)
        plain, added = self._costs.step_seconds(lengths, load)
        drafting = [
            self._costs.draft_seconds(name, lengths, load.num_sequences)
            for name in self._arms.names
        ]
        return plain + added + np.stack(drafting)

    def evaluation_seconds(self, load: Load) -> Floats:
        length = self._arms.max_length
        return np.array([
            self._costs.evaluation_seconds(name, length, load.num_sequences)
            for name in self._arms.names
        ])  # fmt: skip
