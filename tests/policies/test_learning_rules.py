"""What each rule makes of feedback, against its definition; and numbers that stay finite."""

from __future__ import annotations

import numpy as np
import pytest
from learning_selectors import RULES, cells, context, every_rule, learn, make, outcomes

from policies.normalhedge import NormalHedge
from policies.selector import Outcome
from policies.ucbspec import UcbSpec

BANDITS = ("ucbspec", "exp3spec")


@every_rule
@pytest.mark.parametrize("size", [1e7, 1e9])
def test_ten_million_rounds_overflow_nothing(name: str, size: float) -> None:
    rule = RULES[name]()
    sums = np.zeros((2, len(rule.sums), 64))
    sums[:, 1] = size / 64 if name in BANDITS else size
    sums[0, 2] = np.linspace(0, size, 64)
    sums[1, 2] = -np.linspace(0, size, 64)
    weights = rule.probabilities(sums, np.ones((2, 64), np.bool_), np.zeros(2, np.int64))
    assert np.isfinite(weights).all()
    assert weights.sum(axis=1) == pytest.approx(1)


def test_an_importance_weight_uses_the_probability_of_the_choice() -> None:
    """Even if the table has moved on since."""
    selector = make("exp3spec")
    offer = context(suffix=4, model=4)
    (late,) = selector.choose([offer])
    learn(selector, 50, {"suffix": 0, "model": 3})
    before = cells(selector)
    selector.observe([Outcome.of(late, 0)])
    after = cells(selector)
    grown = sum(after[key] - before[key] for key in after if key[3] == "loss")
    assert grown == pytest.approx(1e6 / late.probability, rel=1e-6)


def test_hedge_learns_all_lengths_of_a_drafter_from_one_accept_length() -> None:
    selector = make("hedge")
    offer = context(suffix=4, model=4)
    (decision,) = selector.choose([offer])
    assert decision.evaluated == ("suffix", "model")
    selector.observe(outcomes(decision, offer, {"suffix": 3, "model": 1}))
    losses = {k[1:3]: v / 1e6 for k, v in cells(selector).items() if k[3] == "loss"}
    expected = {("", 0): 0.8, ("suffix", 2): 0.4, ("suffix", 4): 0.2, ("model", 3): 0.6}
    assert losses == pytest.approx(expected)


def test_hedge_waits_until_every_drafter_has_been_heard() -> None:
    selector = make("hedge")
    offer = context(suffix=4, model=4)
    (decision,) = selector.choose([offer])
    selector.observe(outcomes(decision, offer, {"suffix": 3, "model": 1})[-1:])
    assert all(value == 0 for key, value in cells(selector).items() if key[3] == "loss")


def test_ucbspec_first_tries_every_arm_once_across_a_batch() -> None:
    decisions = make("ucbspec").choose([context(str(i), suffix=4, model=4) for i in range(4)])
    arms = {(d.drafter, d.draft_length) for d in decisions}
    assert arms == {(None, 0), ("suffix", 2), ("suffix", 4), ("model", 3)}


def test_ucbspec_has_the_radius_of_the_paper() -> None:
    rule = UcbSpec()
    n, t, num_arms = 5.0, 20.0, 4
    radius = 0.5 * np.sqrt(
        (1 + n) / n**2 * (1 + 2 * np.log(num_arms * t**2 * np.sqrt(1 + n) / 0.5))
    )
    assert rule._radius(np.full((1, 4), 5.0))[0, 0] == pytest.approx(radius)


def test_normalhedge_weighs_as_its_definition_says() -> None:
    regrets = np.array([[3.0, 1.0, -2.0, 0.5]])
    sums = np.zeros((1, 3, 4))
    sums[:, 2] = regrets
    weights = NormalHedge().probabilities(sums, np.ones((1, 4), np.bool_), np.zeros(1, np.int64))
    positive = np.maximum(regrets, 0)
    scales = np.linspace(0.5, 20, 2_000_000)
    means = np.exp(positive[0, :, None] ** 2 / (2 * scales)).mean(axis=0)
    scale = scales[np.abs(means - np.e).argmin()]
    expected = positive / scale * np.exp(positive**2 / (2 * scale))
    assert weights == pytest.approx(expected / expected.sum(), abs=1e-5)
