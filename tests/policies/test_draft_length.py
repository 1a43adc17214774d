"""Draft lengths inside an arm: the threshold of SpecDec++, and a calibrated top probability."""

from __future__ import annotations

import numpy as np
import pytest

from policies.arms import Floats
from policies.calibration import TopProbability
from policies.draft_length import FixedLength, ThresholdLength


class Trusting:
    """Takes the evidence for the probability."""

    def accept_probabilities(self, evidence: Floats) -> Floats:
        return evidence


def drafted(rule: ThresholdLength | FixedLength, evidence: list[float]) -> int:
    """Tokens drafted of a sequence whose tokens come with this evidence."""
    for num_drafted in range(1, len(evidence) + 1):
        if not rule.goes_on(num_drafted, np.array([evidence[:num_drafted]]))[0]:
            return num_drafted
    return len(evidence)


def test_a_fixed_length_is_always_the_same() -> None:
    assert drafted(FixedLength(3), [0.1] * 9) == 3


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [([0.9] * 9, 4), ([0.99] * 9, 9), ([0.2] * 9, 1), ([0.9, 0.3, 0.9], 2)],
)
def test_drafting_stops_once_a_rejection_is_likely_enough(
    evidence: list[float], expected: int
) -> None:
    assert drafted(ThresholdLength(Trusting(), 0.3, 1, 16), evidence) == expected


def test_the_least_and_the_most_hold_whatever_is_predicted() -> None:
    rule = ThresholdLength(Trusting(), 0.3, 2, 5)
    assert drafted(rule, [0.01] * 9) == 2
    assert drafted(rule, [1.0] * 9) == 5


def test_sequences_stop_apart() -> None:
    rule = ThresholdLength(Trusting(), 0.3, 1, 8)
    assert rule.goes_on(2, np.array([[0.9, 0.9], [0.9, 0.5]])).tolist() == [True, False]


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0])
def test_a_threshold_outside_its_range_is_refused_by_name(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        ThresholdLength(Trusting(), threshold, 1, 8)


@pytest.mark.parametrize(("least", "most"), [(0, 3), (4, 3)])
def test_lengths_that_cannot_be_are_refused_by_name(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="min_length"):
        ThresholdLength(Trusting(), 0.5, least, most)


def test_a_draft_length_below_one_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="draft_length: 0"):
        FixedLength(0)


def test_an_overconfident_drafter_is_put_right() -> None:
    generator = np.random.default_rng(0)
    calibrated = TopProbability()
    confidence = generator.random(100_000)
    calibrated.observe(confidence, generator.random(100_000) < confidence**2)
    asked = np.array([0.25, 0.55, 0.85])
    assert calibrated.accept_probabilities(asked) == pytest.approx(asked**2, abs=0.03)


def test_before_any_token_the_probability_is_taken_at_its_word() -> None:
    asked = np.array([[0.25, 0.55], [0.85, 0.15]])
    assert TopProbability().accept_probabilities(asked) == pytest.approx(asked, abs=0.05)


def test_more_confidence_never_means_less_acceptance() -> None:
    generator = np.random.default_rng(1)
    calibrated = TopProbability()
    calibrated.observe(generator.random(300), generator.random(300) < 0.5)
    assert (np.diff(calibrated.accept_probabilities(np.linspace(0, 1, 99))) >= 0).all()


def test_counts_of_others_are_worth_as_much_as_ones_own() -> None:
    one, other = TopProbability(), TopProbability()
    one.observe(np.array([0.3, 0.7, 0.7]), np.array([False, True, True]))
    other.merge(one.num_tested, one.num_accepted)
    asked = np.linspace(0, 1, 9)
    assert (one.accept_probabilities(asked) == other.accept_probabilities(asked)).all()
