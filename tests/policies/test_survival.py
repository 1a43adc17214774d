"""Survival: counts that accept censoring, prices by load, contexts, and a share of evaluations."""

from __future__ import annotations

import numpy as np
import pytest

from policies.arms import Arms, Floats
from policies.cost_model import ArmPrices, CostModel
from policies.features import Features
from policies.prices import FixedPrices
from policies.rate import Rate
from policies.selector import PLAIN, Context, Decision, Learner, Load, Outcome
from policies.survival import Survival, SurvivalSelector
from policies.survival_table import Shrinkage, SurvivalTable

ARMS = Arms({"lookup": (1, 2, 4, 8), "model": (1, 2, 4)})
WEAK = Shrinkage(1e-9, 1e-9, 0.5)


def prices(per_token: float, evaluation: float = 1.0) -> FixedPrices:
    """Plain decoding takes one second."""
    table = np.tile(1 + per_token * np.arange(9), (3, 1))
    return FixedPrices(table, np.array([0.0, evaluation, evaluation]))


def make(
    per_token: float = 0.01, evaluation: float = 1.0, settings: Survival | None = None
) -> SurvivalSelector:
    generator = np.random.default_rng(0)
    return SurvivalSelector(ARMS, prices(per_token, evaluation), generator, settings)


def context(match: int = 0, streak: int = 0, sequence: str = "a", **lengths: int) -> Context:
    return Context(sequence, "t", lengths, {"lookup": match}, {"lookup": streak})


def learn(selector: SurvivalSelector, offer: Context, accepted: int, num_rounds: int = 200) -> None:
    """Every draft, chosen or evaluated, has `accepted` tokens accepted, or all it has."""
    for _ in range(num_rounds):
        (decision,) = selector.choose([offer])
        own = min(accepted, decision.draft_length)
        found = [Outcome.of(decision, own if decision.drafter else 0)]
        for name in decision.evaluated:
            longest = offer.draft_lengths[name]
            outcome = (decision.id, decision.table_version, name, longest, min(accepted, longest))
            found.append(Outcome(*outcome))
        selector.observe(found)


def expected_of(table: SurvivalTable) -> Floats:
    """What the first tenant's table expects."""
    rows = table.rows([context()])
    return np.asarray(table.expected(rows)[rows[0]])


def nothing_learnt(selector: SurvivalSelector) -> Floats:
    return np.zeros(selector.table.shape)


def test_it_is_a_learner_and_no_contexts_give_no_decisions() -> None:
    assert isinstance(make(), Learner)
    assert make().choose([]) == []
    make().observe([])


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


@pytest.mark.parametrize(("accepted", "length"), [(0, 0), (2, 2), (8, 8)])
def test_it_drafts_as_much_as_is_accepted(accepted: int, length: int) -> None:
    selector = make(per_token=0.1)
    offer = context(lookup=8)
    learn(selector, offer, accepted)
    assert selector.choose([offer])[0].draft_length == length


def test_a_drafter_is_judged_by_its_context() -> None:
    selector = make(per_token=0.1)
    good, poor = context(match=9, lookup=8), context(match=3, lookup=8)
    for _ in range(200):
        learn(selector, good, 8, 1)
        learn(selector, poor, 0, 1)
    lengths = [decision.draft_length for decision in selector.choose([good, poor])]
    assert lengths == [8, 0]


def test_drafts_grow_shorter_as_tokens_grow_dear() -> None:
    offer = context(lookup=8)
    lengths = []
    for per_token in (0.01, 0.3, 2.0):
        selector = make(per_token)
        generator = np.random.default_rng(2)
        for _ in range(500):
            (decision,) = selector.choose([offer])
            accepted = min(int(generator.geometric(0.3)) - 1, decision.draft_length)
            selector.observe([Outcome.of(decision, accepted)])
        lengths.append(selector.choose([offer])[0].draft_length)
    assert lengths[0] == 8
    assert 0 < lengths[1] < 8
    assert lengths[2] == 0


def test_masked_drafters_are_never_chosen_nor_evaluated() -> None:
    selector = make(settings=Survival(evaluation_share=1e9))
    offers = [context(lookup=0), context(stranger=8), context(lookup=3)]
    plain, other, short = selector.choose(offers)
    assert (plain.drafter, other.drafter) == (None, None)
    assert plain.evaluated == other.evaluated == ()
    assert short.draft_length <= 3


def test_a_decision_equals_the_plain_one_but_for_its_name() -> None:
    (decision,) = make().choose([context()])
    assert Decision(decision.drafter, decision.draft_length) == PLAIN
    assert decision.id >= 0


def scored(decisions: list[Decision], name: str) -> list[Decision]:
    return [decision for decision in decisions if name in decision.evaluated]


def num_changed(one: list[Decision], other: list[Decision]) -> int:
    return sum(a.evaluated != b.evaluated for a, b in zip(one, other, strict=True))


def with_price(
    evaluation_s: float, per_token: float = 0.01, settings: Survival | None = None
) -> SurvivalSelector:
    """Scoring the model costs this, scoring lookups hardly anything."""
    table = FixedPrices(prices(per_token).table, np.array([0.0, 0.001, evaluation_s]))
    return SurvivalSelector(ARMS, table, np.random.default_rng(0), settings)


def test_what_costs_nothing_to_score_is_always_scored_and_the_rest_on_its_share_of_texts() -> None:
    selector = with_price(0.5)
    offers = [context(sequence=str(i), lookup=2, model=4) for i in range(4000)]
    assert {each.drafter for each in selector.choose(offers)} == {"model"}
    assert len(scored(selector.choose(offers), "lookup")) == 4000
    offers = [context(sequence=str(i), lookup=8, model=4) for i in range(4000)]
    first, second = selector.choose(offers), selector.choose(offers)
    assert {each.drafter for each in first} == {"lookup"}
    assert len(scored(first, "model")) / 4000 == pytest.approx(0.1, abs=0.015)
    assert 0 < num_changed(first, second) < 0.01 * len(offers)
    for _ in range(300):
        later = selector.choose(offers[:500])
    assert num_changed(first[:500], later) == pytest.approx(2 * 0.1 * 0.9 * 500, rel=0.4)
    selector.forget([offer.sequence_id for offer in offers])
    anew = selector.choose(offers)
    assert num_changed(first, anew) == pytest.approx(2 * 0.1 * 0.9 * len(offers), rel=0.2)


@pytest.mark.parametrize(("accepted", "per_token", "share"), [(1, 0.01, 0.5), (0, 0.2, 0.1)])
def test_a_drafter_is_scored_less_once_it_is_known_and_least_if_it_cannot_win(
    accepted: int, per_token: float, share: float
) -> None:
    selector = with_price(0.05, per_token, Survival(novelty=400.0, least_evaluation=0.1))
    offers = [context(sequence=str(i), lookup=8, model=4) for i in range(2000)]
    first = scored(selector.choose(offers), "model")
    assert len(first) == len(offers)
    heard = [Outcome(d.id, d.table_version, "model", 4, accepted) for d in first[:400]]
    selector.observe(heard)
    again = scored(selector.choose(offers), "model")
    assert len(again) / len(offers) == pytest.approx(share, abs=0.03)


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


def test_a_request_s_own_record_corrects_the_table() -> None:
    selector = make(per_token=0.3, settings=Survival(correction_weight=4.0))
    for _ in range(300):
        learn(selector, context(sequence="good", lookup=8), 8, 1)
        learn(selector, context(sequence="poor", lookup=8), 0, 1)
    good, poor = selector.choose(
        [context(sequence="good", lookup=8), context(sequence="poor", lookup=8)]
    )
    assert good.draft_length > poor.draft_length
    selector.forget(["good", "poor", "unknown"])
    good, poor = selector.choose(
        [context(sequence="good", lookup=8), context(sequence="poor", lookup=8)]
    )
    assert good.draft_length == poor.draft_length


def test_cells_depend_on_the_drafter_alone() -> None:
    features = Features((1, 4), (1, 2, 4))
    contexts = [
        Context("a", "t", {}, {"lookup": 4}, {"lookup": 3, "model": 9}),
        Context("b", "t", {}, {}, {"model": 9}),
    ]
    cells = features.cells(ARMS, contexts)
    assert features.num_cells == 12
    assert cells.tolist() == [[0, 2 * 4 + 2, 3], [0, 0, 3]]


def test_the_rate_starts_near_plain_decoding_and_follows_what_is_emitted() -> None:
    rate = Rate()
    assert rate.per_second(8, 0.1) == pytest.approx(15)
    rate.observe(8, 10_000, 60_000, 2_000)
    assert rate.per_second(8, 0.1) == pytest.approx(30, rel=0.02)


def test_a_load_that_is_new_starts_from_the_gain_of_the_nearest() -> None:
    rate = Rate()
    rate.per_second(8, 0.1)
    rate.observe(8, 10**6, 60_000, 2_000)
    assert rate.per_second(64, 0.01) == pytest.approx(300, rel=0.02)


def test_a_load_is_the_step_s() -> None:
    assert Load().num_sequences == 1


def test_confidence_tells_cells_apart_where_it_is_asked_for() -> None:
    def sure(confidence: float | None) -> Context:
        known = {} if confidence is None else {"model": confidence}
        return Context("a", "t", {"model": 4}, {}, {}, confidences=known)

    offers = [sure(value) for value in (None, 0.0, 0.29, 0.31, 0.7, 1.0)]
    plain, telling = Features(), Features(confidence_edges=(0.3, 0.6, 0.85))
    assert len({cell.tobytes() for cell in plain.cells(ARMS, offers)}) == 1
    cells = telling.cells(ARMS, offers)[:, ARMS.index["model"]].tolist()
    assert len(set(cells)) == 5
    assert cells[0] == plain.cells(ARMS, offers)[0, ARMS.index["model"]]
    assert cells[1] == cells[2]
    assert max(cells) < telling.num_cells == 5 * plain.num_cells
    assert make(settings=Survival(features=telling)).reads_confidences
    assert not make().reads_confidences


def test_confidence_that_tells_is_learnt() -> None:
    """A drafter that is right exactly when it is sure drafts then, and only then."""
    features = Features(confidence_edges=(0.5,))
    selector = make(0.3, settings=Survival(features=features, correction_weight=None))
    sure = Context("a", "t", {"model": 4}, {}, {}, confidences={"model": 0.9})
    unsure = Context("a", "t", {"model": 4}, {}, {}, confidences={"model": 0.1})
    for _ in range(200):
        for offer, accepted in ((sure, 4), (unsure, 0)):
            learn(selector, offer, accepted, 1)
    assert [decision.drafter for decision in selector.choose([sure, unsure])] == ["model", None]
