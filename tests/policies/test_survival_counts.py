"""What survival counts: positions at risk and positions passed, by cell, by tenant and shared."""

from __future__ import annotations

import numpy as np
import pytest
from survival_selectors import ARMS, context, learn, make

from policies.arms import Arms, Floats
from policies.cost_model import ArmPrices, CostModel
from policies.selector import Context, Outcome
from policies.survival import Survival, SurvivalSelector
from policies.survival_table import Shrinkage, SurvivalTable

WEAK = Shrinkage(1e-9, 1e-9, 0.5)


def expected_of(table: SurvivalTable) -> Floats:
    """What the first tenant's table expects."""
    rows = table.rows([context()])
    return np.asarray(table.expected(rows)[rows[0]])


def nothing_learnt(selector: SurvivalSelector) -> Floats:
    return np.zeros(selector.table.shape)


def test_censored_drafts_give_the_same_survival_as_whole_ones() -> None:
    """Product-limit: drafts cut at random lengths estimate what uncut ones would."""
    generator = np.random.default_rng(1)
    rates = np.array([0.9, 0.7, 0.8, 0.5])
    table = SurvivalTable(1, 1, 4, WEAK)
    size = 200_000
    accepted = np.cumprod(generator.random((size, 4)) < rates, axis=1).sum(axis=1)
    length = generator.integers(1, 5, size)
    nothing = np.zeros(size, np.int64)
    passed = np.minimum(accepted, length)
    table.rows([context()])
    table.add(nothing, nothing, nothing, np.minimum(passed + 1, length), passed)
    assert table.pass_rates(0)[0, 0] == pytest.approx(rates, abs=0.005)
    expected = np.cumsum(np.cumprod(rates))
    assert expected_of(table)[0, 0] == pytest.approx(np.r_[0, expected], abs=0.01)


def test_an_empty_table_expects_what_the_prior_says() -> None:
    table = SurvivalTable(2, 3, 2, Shrinkage(prior=0.5))
    assert expected_of(table)[1, 2] == pytest.approx([0, 0.5, 0.75])


def test_a_cell_without_counts_expects_what_its_drafter_does_elsewhere() -> None:
    table = SurvivalTable(2, 2, 1, Shrinkage(prior=0.5))
    many = np.zeros(5000, np.int64)
    table.rows([context()])
    table.add(many, many, many, many + 1, many)
    assert table.pass_rates(0)[0, 1, 0] < 0.01
    assert table.pass_rates(0)[1, 1, 0] == pytest.approx(0.5)


def test_counts_of_others_are_worth_as_much_as_ones_own() -> None:
    taught, fresh = make(per_token=0.1), make(per_token=0.1)
    offer = context(lookup=8)
    fresh.choose([offer])
    learn(taught, offer, 8)
    fresh.use(taught.take(), nothing_learnt(fresh))
    assert (fresh.table.pass_rates(0) == taught.table.pass_rates(0)).all()
    assert fresh.choose([offer])[0].draft_length == 8


def test_what_was_learnt_since_it_was_taken_stays() -> None:
    selector, offer = make(), context(lookup=8)
    learn(selector, offer, 2, 10)
    first = selector.take()[""]
    learn(selector, offer, 2, 5)
    selector.use({"": 3 * first}, nothing_learnt(selector))
    second = selector.take()[""]
    assert selector.table.num_at_risk[0, ARMS.index["lookup"], :, 0].sum() == 3 * 10 + 5
    assert (first[0, :, :, 0].sum(), second[0, :, :, 0].sum()) == (10, 5)
    assert selector.take() == {}


def test_tenants_learn_apart_and_a_new_one_starts_from_what_they_share() -> None:
    selector = make(per_token=0.1, evaluation=0.01, settings=Survival("tenant"))
    offers = {
        name: Context(name, name, {"lookup": 8}, {"lookup": 9}) for name in ("good", "poor", "new")
    }
    for _ in range(200):
        learn(selector, offers["good"], 8, 1)
        learn(selector, offers["poor"], 0, 1)
    good, poor = selector.choose([offers["good"], offers["poor"]])
    assert (good.draft_length, poor.draft_length) == (8, 0)
    taken = selector.take()
    selector.use(taken, taken["poor"])
    new, good = selector.choose([offers["new"], offers["good"]])
    assert (new.draft_length, good.draft_length) == (0, 8)


def test_outcomes_of_drafters_that_were_not_chosen_count_once_and_in_any_order() -> None:
    counts = []
    for step in (1, -1):
        selector = make(settings=Survival(evaluation_share=1e9))
        offer = context(lookup=8, model=4)
        found = []
        for decision in selector.choose([offer] * 20):
            found.append(Outcome.of(decision, 1))
            for name in decision.evaluated:
                version = decision.table_version
                found.append(Outcome(decision.id, version, name, offer.draft_lengths[name], 2))
        for outcome in (found + found)[::step]:
            selector.observe([outcome])
        counts.append((selector.table.num_at_risk[0], selector.table.num_passed[0]))
    assert (counts[0][0] == counts[1][0]).all()
    assert (counts[0][1] == counts[1][1]).all()
    assert counts[0][0][1:, :, 0].sum() == 40


def test_a_draft_cut_by_the_end_is_not_held_against_the_drafter() -> None:
    selector = make()
    (decision,) = selector.choose([context(lookup=8)])
    selector.observe([Outcome.of(decision, 3, is_cut=True)])
    assert selector.table.num_at_risk.sum() == selector.table.num_passed.sum() == 3


def test_arms_come_and_go_and_the_others_keep_their_counts() -> None:
    costs = CostModel()
    selector = SurvivalSelector(ARMS, ArmPrices(costs, ARMS), np.random.default_rng(0))
    learn(selector, context(lookup=8), 2, 50)
    before = selector.table.num_at_risk[0, ARMS.index["lookup"]]
    untaken = selector.table.num_at_risk.sum()
    arms = Arms({"model": (1, 2, 4), "new": (3,), "lookup": (1, 2, 4, 8)})
    selector.use_arms(arms, ArmPrices(costs, arms))
    assert (selector.table.num_at_risk[0, 3] == before).all()
    assert selector.table.num_at_risk[0, :3].sum() == 0
    assert selector.take()[""][0].sum() == untaken
    (decision,) = selector.choose([context(lookup=8)])
    assert decision.drafter == "lookup"
