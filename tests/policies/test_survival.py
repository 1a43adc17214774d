"""Survival chooses by prices, by context and by load, and evaluates a share of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from survival_selectors import ARMS, context, learn, make, prices

from policies.features import Features
from policies.prices import FixedPrices
from policies.rate import Rate
from policies.selector import PLAIN, Context, Decision, Learner, Load, Outcome
from policies.survival import Survival, SurvivalSelector


def test_it_is_a_learner_and_no_contexts_give_no_decisions() -> None:
    assert isinstance(make(), Learner)
    assert make().choose([]) == []
    make().observe([])


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


def test_drafters_that_cost_to_score_share_what_scoring_may_cost() -> None:
    table = FixedPrices(prices(0.01).table, np.array([0.0, 0.5, 0.5]))
    selector = SurvivalSelector(ARMS, table, np.random.default_rng(0))
    offers = [context(sequence=str(i), lookup=8, model=4) for i in range(4000)]
    decisions = selector.choose(offers)
    assert len(scored(decisions, "model")) / 4000 == pytest.approx(0.05, abs=0.01)


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
