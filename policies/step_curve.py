"""How long a target step takes, learnt online: rising in tokens, sequences and KV entries."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.arms import Floats
from policies.robust import DEVIATION, fit_linear, rising, smoothed

_KEPT_PER_BUCKET = 32
_REFIT_EVERY = 16  # measured steps
_KEPT = 0.97  # of a bucket's weight against the others, with every step that it is not seen in


@dataclass(frozen=True, slots=True)
class StepTime:
    """One measured step: all tokens it took in, sequences, KV entries read, seconds."""

    num_tokens: int
    num_sequences: int
    num_kv_entries: int
    seconds: float


class StepCurve:
    """A curve over tokens, free but for rising, plus a price per sequence and per KV entry.

    The curve has one knot for each number of tokens up to 16, then eight to every doubling; the
    last measured steps of each are kept and their median counts, so that one slow step moves
    nothing and a lasting change is learnt. A knot with few steps goes by its neighbours too: what a
    draft adds is a small difference of two of them. Linear between knots; beyond them as steep as
    on average, and flat while there is only one: drafts are tried, and their steps measured.
    """

    def __init__(self) -> None:
        self._steps: dict[int, deque[StepTime]] = {}
        self._last: dict[int, int] = {}  # number of the last step of each bucket
        self._num_steps = 0
        self._num_unfitted = 0
        self._knots: Floats = np.zeros(0)  # tokens
        self._heights: Floats = np.zeros(0)  # seconds
        self._per_sequence = self._per_kv_entry = 0.0

    @property
    def is_fitted(self) -> bool:
        return bool(self._steps)

    def observe(self, step: StepTime) -> bool:
        """Whether the curve is another now."""
        bucket = _bucket(step.num_tokens)
        steps = self._steps.setdefault(bucket, deque(maxlen=_KEPT_PER_BUCKET))
        is_new = not steps
        steps.append(step)
        self._num_steps += 1
        self._last[bucket] = self._num_steps
        self._num_unfitted += 1
        if not is_new and self._num_unfitted < _REFIT_EVERY:
            return False
        self._refit()
        return True

    def seconds(self, num_tokens: Floats, num_sequences: int, num_kv_entries: int) -> Floats:
        """Predicted, by number of tokens; needs at least one measured step."""
        heights = np.interp(num_tokens, self._knots, self._heights)
        beyond = np.maximum(num_tokens - self._knots[-1], 0)
        rest = self._per_sequence * num_sequences + self._per_kv_entry * num_kv_entries
        return np.asarray(heights + self._slope * beyond + rest)

    @property
    def _slope(self) -> float:
        """Of the whole curve."""
        if len(self._knots) == 1:
            return 0.0
        rise, run = self._heights[-1] - self._heights[0], self._knots[-1] - self._knots[0]
        return float(rise / run)

    def _refit(self) -> None:
        self._num_unfitted = 0
        groups = [
            np.array([(s.num_tokens, s.num_sequences, s.num_kv_entries, s.seconds) for s in steps])
            for _, steps in sorted(self._steps.items())
        ]
        self._fit_slopes(groups)
        slopes = np.array([self._per_sequence, self._per_kv_entry])
        medians = np.array([np.median(group[:, 3] - group[:, 1:3] @ slopes) for group in groups])
        self._knots = np.array([group[:, 0].mean() for group in groups])
        ages = self._num_steps - np.array([self._last[bucket] for bucket in sorted(self._steps)])
        counts = np.array([float(len(group)) for group in groups])
        heights = _shrunk(self._knots, medians, counts, _noises(groups))
        weights = np.maximum(counts * _KEPT**ages, 1e-12)
        self._heights = np.maximum(rising(heights, weights), 0.0)

    def _fit_slopes(self, groups: list[Floats]) -> None:
        """From differences within a bucket, where the number of tokens is nearly the same."""
        centred = np.concatenate([group - np.median(group, axis=0) for group in groups])
        self._per_sequence, self._per_kv_entry = fit_linear(centred[:, 1:3], centred[:, 3])


def _noises(groups: Sequence[Floats]) -> Floats:
    """How far a step is from others like it, of each group, as a standard deviation in seconds.

    That is a share of what steps take, the same for all; 0 while no group says.
    """
    middles = np.array([np.median(group[:, 3]) for group in groups])
    apart = [
        np.abs(group[:, 3] / middle - 1)
        for group, middle in zip(groups, middles, strict=True)
        if len(group) > 2 and middle > 0
    ]
    return DEVIATION * float(np.median(np.concatenate(apart))) * middles if apart else 0 * middles


def _shrunk(knots: Floats, medians: Floats, counts: Floats, noises: Floats) -> Floats:
    """Towards the neighbours, by what noise alone would make of a knot against how much knots
    differ from their neighbours in truth (James and Stein, 1961)."""
    line = smoothed(knots, medians, counts)
    doubts = noises**2 * np.pi / 2 / counts  # of a median, in seconds squared
    differences = max(float(np.average((medians - line) ** 2 - doubts, weights=counts)), 0.0)
    return np.asarray(medians + doubts / np.maximum(doubts + differences, 1e-18) * (line - medians))


def _bucket(num_tokens: int) -> int:
    if num_tokens <= 16:
        return num_tokens
    doublings = num_tokens.bit_length() - 4
    return 8 * doublings + 1 + (num_tokens >> doublings)
