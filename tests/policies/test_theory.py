"""Regret grows as the papers prove: seeded simulations, thresholds with room to spare."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.regret_simulator import Drifting, Runs, Switching, mean_emitted, simulate
from policies.exp3spec import Exp3Spec
from policies.hedge import Hedge
from policies.learning import Rule
from policies.normalhedge import NormalHedge
from policies.ucbspec import UcbSpec

LENGTH = 4
GOOD, POOR = 0.9, 0.3
NUM_ARMS = (2, 4, 8, 16, 32, 64)
FULL_INFORMATION = pytest.mark.parametrize("make_rule", [Hedge, NormalHedge])


def one_good_arm(num_arms: int) -> Switching:
    return Switching([[GOOD] + [POOR] * (num_arms - 1)], draft_length=LENGTH)


def regrets(rule: Rule, num_arms: int, marks: list[int], num_runs: int = 40) -> list[float]:
    """Rounds that the other arms cost, at each mark of tokens."""
    runs = simulate(rule, one_good_arm(num_arms), marks, num_runs, np.random.default_rng(0))
    mean: list[float] = runs.regret.mean(axis=1).tolist()
    return mean


def test_the_mean_of_a_truncated_geometric_is_known() -> None:
    runs = simulate(UcbSpec(), Switching([[0.7]]), [40_000], 10, np.random.default_rng(0))
    assert 40_000 / runs.rounds.mean() == pytest.approx(mean_emitted(0.7, LENGTH), rel=0.01)
    assert mean_emitted(1.0, 4) == 5


def test_the_regret_of_ucbspec_grows_like_a_logarithm() -> None:
    """Each fourfold text adds about as much as the one before (a root would add twice that)."""
    first, second, third = regrets(UcbSpec(), 4, [1_000, 4_000, 16_000])
    assert second - first > 0
    assert third - second < 1.5 * (second - first)


def test_ucbspec_is_within_a_constant_of_the_lower_bound() -> None:
    """BanditSpec, theorem on the lower bound: sum of gap / KL times log of the horizon."""
    emitted = np.arange(LENGTH + 1)

    def chances(rate: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.where(emitted < LENGTH, rate**emitted * (1 - rate), rate**emitted)

    divergence = float((chances(POOR) * np.log(chances(POOR) / chances(GOOD))).sum())
    gap = 1 - float(mean_emitted(POOR, LENGTH) / mean_emitted(GOOD, LENGTH))
    num_poor = 3
    slope = num_poor * gap / divergence  # rounds for each unit of log(horizon)
    low, high = regrets(UcbSpec(), 1 + num_poor, [1_000, 16_000])
    assert 0.5 * slope < (high - low) / np.log(16) < 30 * slope


def test_the_regret_of_exp3spec_grows_like_a_root() -> None:
    """In the hardest instances, whose gaps shrink like one over the root of the horizon."""
    short, long = (_hard_regret(Exp3Spec(), num_tokens) for num_tokens in (1_000, 16_000))
    assert 3 < long / short < 5


def test_the_regret_of_exp3spec_is_no_more_than_that_where_gaps_are_wide() -> None:
    first, second, third = regrets(Exp3Spec(), 4, [1_000, 4_000, 16_000])
    assert second / first < 2
    assert third / second < 2


def _hard_regret(rule: Rule, num_tokens: int) -> float:
    poor = GOOD - 4 / num_tokens**0.5
    environment = Switching([[GOOD, poor, poor, poor]], draft_length=LENGTH)
    runs = simulate(rule, environment, [num_tokens], 40, np.random.default_rng(0))
    return float(runs.regret.mean())


@pytest.mark.parametrize("delay", [0, 20])
@FULL_INFORMATION
def test_full_information_stays_within_its_bound_under_delay(
    make_rule: Callable[[], Rule], delay: int
) -> None:
    """Delay d multiplies the bound by sqrt(d + 1) at most (Joulani, Gyorgy and Szepesvari, 2013).

    Arms that change places are the adversary.
    """
    rates = [[GOOD, POOR, 0.6, 0.5], [POOR, GOOD, 0.6, 0.5]]
    for environment in (Switching(rates, [5_000]), Drifting(rates[0], rates[1], 10_000)):
        runs = simulate(make_rule(), environment, [10_000], 20, np.random.default_rng(0), delay)
        num_rounds = runs.rounds[0].mean()
        bound = 2 * np.sqrt(num_rounds / 2 * np.log(4)) + np.sqrt(np.log(4) / 8)
        assert _against_best(runs) < bound * np.sqrt(delay + 1)


def _against_best(runs: Runs) -> float:
    """The largest sum of losses beyond the best arm's, over the runs."""
    return float((runs.losses - runs.arm_losses.min(axis=1)).max())


@FULL_INFORMATION
def test_full_information_pays_for_arms_by_their_logarithm(make_rule: Callable[[], Rule]) -> None:
    """Each doubling from 2 to 64 arms adds no more than two arms cost at all."""
    costs = [regrets(make_rule(), n, [2_000], 20)[0] for n in NUM_ARMS]
    assert max(np.diff(costs)) < costs[0]
    assert costs[-1] < np.log(NUM_ARMS[-1]) / np.log(2) * costs[0]
    assert costs[-1] < 0.05 * regrets(UcbSpec(), NUM_ARMS[-1], [2_000], 5)[0]


@pytest.mark.parametrize("make_rule", [UcbSpec, Exp3Spec])
def test_a_bandit_pays_for_arms_by_their_number(make_rule: Callable[[], Rule]) -> None:
    """Regret by poor arm is the same within a factor of two from 2 to 64 arms."""
    by_arm = [regrets(make_rule(), n, [16_000], 5)[0] / (n - 1) for n in NUM_ARMS]
    assert max(by_arm) < 2 * min(by_arm)


@FULL_INFORMATION
def test_full_information_follows_arms_that_change_places(make_rule: Callable[[], Rule]) -> None:
    """After a switch as long as the text before it, far better than the arm that was best."""
    environment = Switching([[0.6, 0.5], [0.2, 0.9]], [4_000])
    runs = simulate(make_rule(), environment, [12_000], 20, np.random.default_rng(0))
    stays = 4_000 / mean_emitted(0.6, LENGTH) + 8_000 / mean_emitted(0.2, LENGTH)
    assert runs.rounds[0].mean() < 0.7 * stays
