"""When a drafter stops inside its arm's length: always at the same length, or by a threshold."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from policies.arms import Bools, Floats


class DraftLengthRule(Protocol):
    """Asked after each draft token, for many sequences at once; knows no token's test."""

    def goes_on(self, num_drafted: int, evidence: Floats) -> Bools:
        """Whether to draft one more after `num_drafted` tokens, from what the drafter knew of
        each, [num_sequences, num_drafted] (a top probability, or a head's output)."""
        ...


class AcceptPredictor(Protocol):
    """Turns what a drafter knows of a draft token into the probability of its acceptance, given
    that the tokens before it are accepted."""

    def accept_probabilities(self, evidence: Floats) -> Floats: ...


class FixedLength:
    """Always `draft_length` tokens."""

    def __init__(self, draft_length: int) -> None:
        if draft_length < 1:
            raise ValueError(f"draft_length: {draft_length} is not allowed; expected >= 1")
        self._draft_length = draft_length

    def goes_on(self, num_drafted: int, evidence: Floats) -> Bools:
        return np.full(len(evidence), num_drafted < self._draft_length)


class ThresholdLength:
    """Stops when a rejection is likely enough: 1 - product of p(accepted) > threshold.

    SpecDec++ (arXiv 2405.19715, section 3.2, algorithm 1): the token that passes the threshold is
    still part of the draft.
    """

    def __init__(
        self, predictor: AcceptPredictor, threshold: float, min_length: int, max_length: int
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: {threshold} is not allowed; expected between 0 and 1")
        if not 1 <= min_length <= max_length:
            raise ValueError(
                f"min_length, max_length: {min_length}, {max_length} are not allowed; "
                "expected 1 <= min_length <= max_length"
            )
        self._predictor = predictor
        self._threshold = threshold
        self._min_length = min_length
        self._max_length = max_length

    def goes_on(self, num_drafted: int, evidence: Floats) -> Bools:
        if num_drafted < self._min_length:
            return np.ones(len(evidence), np.bool_)
        if num_drafted >= self._max_length:
            return np.zeros(len(evidence), np.bool_)
        accepted = self._predictor.accept_probabilities(evidence).prod(axis=1)
        return np.asarray(1 - accepted <= self._threshold, np.bool_)
