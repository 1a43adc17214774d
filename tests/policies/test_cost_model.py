"""The cost model: rising curves from noisy times, deaf to outliers, marginal at the batch."""

from __future__ import annotations

import numpy as np
import pytest

from policies.arms import Arms, Floats
from policies.cost_model import ArmPrices, CostModel, DraftTime
from policies.robust import fit_linear, rising, smoothed
from policies.selector import Load
from policies.step_curve import StepCurve, StepTime

ARMS = Arms({"lookup": (1, 4), "model": (2, 8)})


def staircase(num_tokens: int, num_kv: int = 0) -> float:
    """Cheap up to three tokens, as measured on a CPU."""
    return (0.03 if num_tokens <= 3 else 0.06 + 0.001 * num_tokens) + 1e-6 * num_kv


def measured(noise: float, outliers: float, num_steps: int = 3000) -> StepCurve:
    generator = np.random.default_rng(0)
    curve = StepCurve()
    for _ in range(num_steps):
        tokens, kv = int(generator.integers(1, 40)), int(generator.integers(0, 8000))
        seconds = staircase(tokens, kv) * (1 + noise * generator.standard_normal())
        if generator.random() < outliers:
            seconds *= 20
        curve.observe(StepTime(tokens, 1, kv, seconds))
    return curve


def predicted(curve: StepCurve, *num_tokens: int, kv: int = 0) -> Floats:
    return curve.seconds(np.array(num_tokens, np.float64), 1, kv)


def test_steps_in_the_curve_are_found() -> None:
    curve = measured(noise=0.02, outliers=0.0)
    found = predicted(curve, 1, 3, 4, 16, 32)
    expected = [staircase(n) for n in (1, 3, 4, 16, 32)]
    assert found == pytest.approx(expected, rel=0.06)


def test_one_slow_step_in_ten_moves_it_little() -> None:
    clean, dirty = measured(0.02, 0.0), measured(0.02, 0.1)
    sizes = (1, 3, 4, 16, 32)
    assert predicted(dirty, *sizes) == pytest.approx(predicted(clean, *sizes), rel=0.08)


def test_kv_entries_have_their_price() -> None:
    curve = measured(noise=0.01, outliers=0.0)
    grown = predicted(curve, 8, kv=8000)[0] - predicted(curve, 8, kv=0)[0]
    assert grown == pytest.approx(8e-3, rel=0.3)


def test_what_a_draft_adds_is_known_from_steps_of_other_sizes() -> None:
    """A hundred plain steps, and three of each size that drafts make, a fifth off."""
    generator = np.random.default_rng(5)
    sizes = [8] * 100 + 3 * list(range(9, 25))
    errors = []
    for _ in range(20):
        curve = StepCurve()
        for size in generator.permutation(sizes).tolist():
            seconds = (0.020 + 0.002 * size) * (1 + 0.2 * generator.standard_normal())
            curve.observe(StepTime(size, 8, 0, seconds))
        base, *drafted = predicted(curve, 8, *range(9, 17))
        errors.append(np.array(drafted) - base - 0.002 * np.arange(1, 9))
    assert np.median(np.abs(errors)) < 0.002  # 0.0033 from each size's own steps


def test_the_curve_never_falls() -> None:
    curve = measured(noise=0.5, outliers=0.2, num_steps=300)
    assert (np.diff(predicted(curve, *range(1, 200))) >= 0).all()


def test_a_lasting_change_is_learnt() -> None:
    curve = measured(noise=0.01, outliers=0.0, num_steps=500)
    for _ in range(200):
        curve.observe(StepTime(1, 1, 0, 0.3))
    assert predicted(curve, 1)[0] > 0.15


def test_before_any_step_every_arm_costs_the_same() -> None:
    table = ArmPrices(CostModel(), ARMS).seconds(Load())
    assert (table == 1).all()


def test_a_draft_costs_what_it_adds_to_the_step_at_this_batch() -> None:
    model = CostModel()
    for tokens in range(1, 64):
        model.observe_step(StepTime(tokens, 4, 0, 0.1 + 0.01 * max(tokens - 32, 0)), 0)
    prices = ArmPrices(model, ARMS)
    idle, busy = prices.seconds(Load(4, 4)), prices.seconds(Load(40, 40))
    assert idle[0, 0] == pytest.approx(0.1 / 4, rel=0.05)
    assert idle[0, 8] - idle[0, 0] == pytest.approx(0, abs=1e-3)
    assert busy[0, 8] - busy[0, 0] == pytest.approx(0.08, rel=0.1)


def test_what_prompts_take_is_no_sequences_and_their_step_makes_drafts_as_dear_as_it_is() -> None:
    model = CostModel()
    for tokens in range(1, 300):
        model.observe_step(StepTime(tokens, 4, 0, 0.1 + 0.01 * max(tokens - 32, 0)), 0)
    prices = ArmPrices(model, ARMS)
    alone, beside = prices.seconds(Load(4, 4)), prices.seconds(Load(4, 260))
    assert beside[0, 0] == alone[0, 0] == pytest.approx(0.1 / 4, rel=0.05)
    assert beside[0, 8] - beside[0, 0] == pytest.approx(0.08, rel=0.1)
    assert model.step_seconds(Load(4, 260)) == pytest.approx(0.1 + 2.28, rel=0.05)


def test_what_the_first_draft_of_a_step_costs_is_paid_by_all_of_them() -> None:
    model = CostModel()
    for _ in range(300):  # four drafts of four as a rule; then none
        model.observe_step(StepTime(20, 4, 0, 0.15), 16)
    for tokens in range(1, 64):
        model.observe_step(StepTime(tokens, 4, 0, 0.1 if tokens <= 4 else 0.15), 0)
    seconds = ArmPrices(model, ARMS).seconds(Load(4, 4))[0]
    assert 0.05 / 4 < seconds[4] - seconds[0] < 0.04


def test_drafters_are_priced_by_call_and_by_token_and_share_the_call() -> None:
    generator = np.random.default_rng(0)
    model = CostModel()
    model.observe_step(StepTime(1, 1, 0, 1.0), 0)
    for i in range(300):
        length, sequences = int(generator.integers(1, 9)), int(generator.integers(1, 9))
        seconds = 0.002 + 0.003 * length + 0.0001 * length * sequences
        seconds *= 50 if i % 20 == 0 else 1 + 0.02 * generator.standard_normal()
        model.observe_draft(DraftTime("model", sequences, length, length * sequences, seconds))
    drafter = ARMS.index["model"]
    for sequences in (1, 8):
        table = ArmPrices(model, ARMS).seconds(Load(sequences, sequences))
        extra = table[drafter] - table[0]
        expected = (0.002 + 0.003 * 8) / sequences + 0.0001 * 8
        assert extra[8] == pytest.approx(expected, rel=0.1)
        assert extra[0] == 0
    evaluation = ArmPrices(model, ARMS).evaluation_seconds(Load())
    assert evaluation[drafter] == pytest.approx(0.0268, rel=0.1)
    assert evaluation[0] == 0


def evaluation_price(model: CostModel) -> float:
    prices = ArmPrices(model, ARMS).evaluation_seconds(Load())
    assert prices[ARMS.index["lookup"]] == 0
    return float(prices[ARMS.index["model"]])


def test_an_evaluation_costs_what_scoring_took() -> None:
    model = CostModel()
    model.observe_draft(DraftTime("model", 1, 8, 8, 0.8))
    for _ in range(50):
        model.observe_evaluation("model", 4, 0.02)
    assert evaluation_price(model) == pytest.approx(0.005)


def test_scoring_that_settles_nothing_is_paid_by_what_is_settled() -> None:
    """As where it is asked for in one round and comes in another."""
    model = CostModel()
    for _ in range(100):
        model.observe_evaluation("model", 0, 0.03)
        model.observe_evaluation("model", 4, 0.01)
    assert evaluation_price(model) == pytest.approx(0.01, rel=0.1)
    for _ in range(1000):
        model.observe_evaluation("model", 0, 0.03)
    assert 0.03 < evaluation_price(model) < 1.0


def test_until_something_is_settled_it_costs_a_whole_draft_or_what_was_waited_in_vain() -> None:
    model = CostModel()
    for _ in range(16):
        model.observe_draft(DraftTime("model", 1, 8, 8, 0.8))
    model.observe_evaluation("model", 0, 1e-5)
    assert evaluation_price(model) == pytest.approx(0.8, rel=0.01)
    model.observe_evaluation("model", 0, 9.0)
    assert evaluation_price(model) == pytest.approx(9.0, rel=0.01)


def test_all_arms_are_priced_from_the_same_measurements() -> None:
    model = CostModel()
    model.observe_step(StepTime(1, 1, 0, 1.0), 0)
    model.observe_draft(DraftTime("model", 1, 4, 4, 0.5))
    table = ArmPrices(model, Arms({"model": (4,)})).seconds(Load())
    assert table.shape == (2, 5)
    assert table[1, 4] > table[0, 4]


def test_rising_pools_what_falls() -> None:
    values, weights = np.array([1.0, 3.0, 2.0, 5.0, 4.0]), np.array([1.0, 1.0, 3.0, 1.0, 1.0])
    assert rising(values, weights) == pytest.approx([1, 2.25, 2.25, 4.5, 4.5])


def test_a_line_is_smoothed_to_itself_and_a_single_value_too() -> None:
    places = np.array([1.0, 2.0, 3.0, 40.0, 900.0])
    weights = np.array([1.0, 5.0, 2.0, 1.0, 3.0])
    assert smoothed(places, 2.0 + 3.0 * places, weights) == pytest.approx(2.0 + 3.0 * places)
    assert smoothed(places[:1], np.array([7.0]), weights[:1]) == pytest.approx([7.0])


def test_linear_weights_are_never_negative() -> None:
    generator = np.random.default_rng(3)
    features = generator.random((200, 3))
    targets = features @ np.array([2.0, -1.0, 0.5]) + 0.01 * generator.standard_normal(200)
    assert (fit_linear(features, targets) >= 0).all()
