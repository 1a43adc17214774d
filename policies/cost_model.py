"""What each arm costs now, from measured times: the marginal seconds at the present batch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from policies.arms import Arms, Floats
from policies.robust import fit_linear
from policies.selector import Load
from policies.step_curve import StepCurve, StepTime

_KEPT_CALLS = 128
_REFIT_EVERY = 16  # measured calls
_KEPT_DRAFTS = 0.98  # of the mean number of draft tokens in a step, with every step
_REPRICE_EVERY = 16  # measured evaluations
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

    def observe(self, call: DraftTime) -> bool:
        """Whether the price is another now."""
        self._calls.append(call)
        self._num_unfitted += 1
        if self._num_unfitted < _REFIT_EVERY <= len(self._calls):
            return False
        self._num_unfitted = 0
        features = [(1, c.draft_length, c.num_tokens) for c in self._calls]
        seconds = np.array([c.seconds for c in self._calls])
        self._weights = fit_linear(np.array(features, np.float64), seconds)
        return True

    def seconds(self, lengths: Floats, num_sequences: int) -> Floats:
        """One sequence's part of a call that all sequences share, by its draft length."""
        call, per_length, per_token = self._weights
        shared = (call + per_length * lengths) / num_sequences
        return np.asarray(np.where(lengths > 0, shared + per_token * lengths, 0.0))


class _EvaluationCost:
    """Mean seconds of scoring one position, fading; calls that scored nothing count as well."""

    def __init__(self) -> None:
        self._num_positions = self._seconds = 0.0

    def observe(self, num_positions: int, seconds: float) -> None:
        self._num_positions = _KEPT_EVALUATIONS * self._num_positions + num_positions
        self._seconds = _KEPT_EVALUATIONS * self._seconds + seconds

    @property
    def mean_s(self) -> float:
        return self._seconds / max(self._num_positions, 1.0)

    @property
    def has_settled(self) -> bool:
        return self._num_positions > 0.0


class CostModel:
    """What was measured: target steps, drafters' calls, evaluations. Knows no arms.

    A draft of k adds T(n + k) - T(n) to the step, where n is what the step holds anyway: the
    load's tokens and the drafts that the other sequences bring as a rule. It is charged its part of
    what all drafts add to the step if that is more, so that what the first draft costs is paid.
    """

    def __init__(self) -> None:
        self._curve = StepCurve()
        self._calls: dict[str, _CallCost] = {}
        self._evaluations: dict[str, _EvaluationCost] = {}
        self._drafts_per_sequence = 0.0
        self._num_evaluations = 0
        self._version = 0

    def observe_step(self, step: StepTime, num_draft_tokens: int) -> None:
        self._version += self._curve.observe(step)
        mean = num_draft_tokens / max(step.num_sequences, 1)
        self._drafts_per_sequence += (1 - _KEPT_DRAFTS) * (mean - self._drafts_per_sequence)

    def observe_draft(self, call: DraftTime) -> None:
        self._version += self._calls.setdefault(call.drafter, _CallCost()).observe(call)

    def observe_evaluation(self, drafter: str, num_positions: int, seconds: float) -> None:
        """One call that scored `drafter` at `num_positions` positions, of any sequences.

        At none, too: who waited, or asked for what comes later, has spent the time.
        """
        self._evaluations.setdefault(drafter, _EvaluationCost()).observe(num_positions, seconds)
        self._num_evaluations += 1
        self._version += self._num_evaluations % _REPRICE_EVERY == 1

    @property
    def version(self) -> int:
        """Changes when prices do."""
        return self._version

    def step_seconds(self, load: Load) -> float:
        """Of a step without drafts; 1 for each sequence until a step was measured."""
        if not self._curve.is_fitted:
            return float(load.num_sequences)
        num_tokens = np.array([float(load.num_tokens)])
        return float(self._curve.seconds(num_tokens, load.num_sequences, load.num_kv_entries)[0])

    def plain_seconds(self, load: Load) -> float:
        """A sequence's share of a step without drafts and prompts.

        What prompts take is there whatever is drafted: a rate of tokens per second that counts it
        makes seconds too cheap.
        """
        decoding = replace(load, num_tokens=load.num_sequences)
        return self.step_seconds(decoding) / load.num_sequences

    def added_seconds(self, lengths: Floats, load: Load) -> Floats:
        """What drafts of these lengths add to the step; nothing until one was measured."""
        if not self._curve.is_fitted:
            return np.zeros(len(lengths))
        others = self._drafts_per_sequence * (load.num_sequences - 1)
        num_tokens = load.num_tokens + np.concatenate([[0.0, others], others + lengths])
        steps = self._curve.seconds(num_tokens, load.num_sequences, load.num_kv_entries)
        part = lengths / np.maximum(others + lengths, 1.0)
        return np.asarray(np.maximum(steps[2:] - steps[1], (steps[2:] - steps[0]) * part))

    def draft_seconds(self, drafter: str | None, lengths: Floats, num_sequences: int) -> Floats:
        """One sequence's part of drafting this many tokens; 0 while nothing was measured."""
        call = self._calls.get(drafter) if drafter else None
        return call.seconds(lengths, num_sequences) if call else np.zeros(len(lengths))

    def evaluation_seconds(self, drafter: str | None, length: int, num_sequences: int) -> float:
        """Of scoring at one position; until one was, of drafting to full length there, if that is
        more than what was spent in vain."""
        cost = self._evaluations.get(drafter) if drafter else None
        if cost is not None and cost.has_settled:
            return cost.mean_s
        full = float(self.draft_seconds(drafter, np.array([float(length)]), num_sequences)[0])
        return max(full, cost.mean_s if cost is not None else 0.0)


class ArmPrices:
    """`Prices` of these arms as measured so far; until a step is, no arm costs more than none.

    What a draft adds is worked out once for each load and version of the costs.
    """

    def __init__(self, costs: CostModel, arms: Arms) -> None:
        self._costs = costs
        self._arms = arms
        self._lengths = np.arange(arms.max_length + 1, dtype=np.float64)
        self._version = -1
        self._added: dict[tuple[int, int], Floats] = {}
        self._evaluation: dict[int, Floats] = {}

    def seconds(self, load: Load) -> Floats:
        self._drop_old()
        key = (load.num_sequences, load.num_tokens)
        if key not in self._added:
            self._added[key] = self._added_seconds(load)
        return self._costs.plain_seconds(load) + self._added[key]

    def evaluation_seconds(self, load: Load) -> Floats:
        self._drop_old()
        key = load.num_sequences
        if key not in self._evaluation:
            self._evaluation[key] = self._evaluation_seconds(load)
        return self._evaluation[key]

    def _drop_old(self) -> None:
        if self._version != self._costs.version:
            self._version = self._costs.version
            self._added.clear()
            self._evaluation.clear()

    def _added_seconds(self, load: Load) -> Floats:
        drafting = [
            self._costs.draft_seconds(name, self._lengths, load.num_sequences)
            for name in self._arms.names
        ]
        return self._costs.added_seconds(self._lengths, load) + np.stack(drafting)

    def _evaluation_seconds(self, load: Load) -> Floats:
        length = self._arms.max_length
        return np.array([
            self._costs.evaluation_seconds(name, length, load.num_sequences)
            for name in self._arms.names
        ])  # fmt: skip
