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


class CostModel:
    """`Prices` learnt from steps and drafters' calls. Until a step is measured all arms are free.

    A draft of k adds T(n + k) - T(n) to the step, where n is what the step holds anyway: the
    load's tokens and the drafts that the other sequences bring as a rule.
    """

    def __init__(self, arms: Arms) -> None:
        self._arms = arms
        self._curve = StepCurve()
        self._calls: dict[str, _CallCost] = {}
        self._drafts_per_sequence = 0.0

    def use_arms(self, arms: Arms) -> None:
        """Prices these from now on; drafters that stay keep their times."""
        self._arms = arms

    def observe_step(self, step: StepTime, num_draft_tokens: int) -> None:
        self._curve.observe(step)
        mean = num_draft_tokens / max(step.num_sequences, 1)
        self._drafts_per_sequence += (1 - _KEPT_DRAFTS) * (mean - self._drafts_per_sequence)

    def observe_draft(self, call: DraftTime) -> None:
        self._calls.setdefault(call.drafter, _CallCost()).observe(call)

    def seconds(self, load: Load) -> Floats:
        lengths = np.arange(self._arms.max_length + 1, dtype=np.float64)
        table = np.zeros((len(self._arms.names), len(lengths)))
        if not self._curve.is_fitted:
            return table + 1.0
        sequences, kv = load.num_sequences, load.num_kv_entries
        others = load.num_tokens + self._drafts_per_sequence * (sequences - 1)
        steps = self._curve.seconds(others + lengths, sequences, kv)
        plain = self._curve.seconds(np.array([float(load.num_tokens)]), sequences, kv)[0]
        table += plain / sequences + steps - steps[0]
        return table + self._draft_seconds(load)

    def evaluation_seconds(self, load: Load) -> Floats:
        """A drafter is scored at a position by drafting there to its full length."""
        return self._draft_seconds(load)[:, -1]

    def _draft_seconds(self, load: Load) -> Floats:
        lengths = np.arange(self._arms.max_length + 1, dtype=np.float64)
        rows = [
            self._calls[name].seconds(lengths, load.num_sequences)
            if name in self._calls
            else np.zeros(len(lengths))
            for name in self._arms.names
        ]
        return np.stack(rows)
