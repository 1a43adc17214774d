"""What every learner keeps to: offers, masks, scopes, and feedback in any order, once."""

from __future__ import annotations

import numpy as np
import pytest
from learning_selectors import ARMS, PRICES, cells, context, every_rule, learn, make, outcomes

from policies.arms import Arms
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Loss
from policies.rows import Scope
from policies.selector import Context, Learner, Outcome


def shares(selector: LearningSelector, offer: Context, num_rounds: int = 200) -> dict[str, float]:
    """How often each drafter is chosen when nothing more is learnt."""
    decisions = [selector.choose([offer])[0] for _ in range(num_rounds)]
    names = [decision.drafter or "none" for decision in decisions]
    return {name: names.count(name) / num_rounds for name in set(names)}


@every_rule
def test_it_is_a_learner_and_no_contexts_give_no_decisions(name: str) -> None:
    selector = make(name)
    assert isinstance(selector, Learner)
    assert selector.choose([]) == []
    selector.observe([])


@every_rule
@pytest.mark.parametrize("scope", ["request", "tenant", "global"])
@pytest.mark.parametrize("loss", ["tokens", "seconds"])
def test_decisions_keep_to_the_offers(name: str, scope: Scope, loss: Loss) -> None:
    selector = make(name, scope, loss)
    offers = [context("a", suffix=3), context("b", model=9), context("c"), context("d", other=3)]
    for _ in range(30):
        decisions = selector.choose(offers)
        for decision, offer in zip(decisions, offers, strict=True):
            if decision.drafter is not None:
                assert 0 < decision.draft_length <= offer.draft_lengths[decision.drafter]
                assert decision.drafter in ARMS.index
            else:
                assert decision.draft_length == 0
            assert 0 < decision.probability <= 1
        found = zip(decisions, offers, strict=True)
        selector.observe([o for d, c in found for o in outcomes(d, c, {"suffix": 1, "model": 2})])


@every_rule
def test_it_comes_to_the_best_drafter(name: str) -> None:
    selector = make(name)
    learn(selector, 1000, {"suffix": 0, "model": 3})
    assert shares(selector, context(suffix=4, model=4))["model"] > 0.6


@every_rule
def test_with_seconds_it_comes_to_plain_decoding_when_drafts_fail(name: str) -> None:
    selector = make(name, loss="seconds")
    learn(selector, 3000, {"suffix": 0, "model": 0})
    found = shares(selector, context(suffix=4, model=4))
    assert found["none"] == max(found.values())


@every_rule
def test_the_order_of_feedback_does_not_matter(name: str) -> None:
    sums = []
    for step in (1, -1):
        selector = make(name)
        offers = [context(str(i), suffix=4, model=3) for i in range(20)]
        found = [
            outcome
            for i, (d, c) in enumerate(zip(selector.choose(offers), offers, strict=True))
            for outcome in outcomes(d, c, {"suffix": i % 4, "model": i % 3})
        ]
        for outcome in found[::step]:
            selector.observe([outcome])
        sums.append(cells(selector))
    assert sums[0].keys() == sums[1].keys()
    assert list(sums[0].values()) == pytest.approx(list(sums[1].values()), abs=2)


@every_rule
def test_feedback_counts_once_and_only_for_decisions_that_are_known(name: str) -> None:
    selector = make(name)
    offer = context(suffix=4, model=4)
    (decision,) = selector.choose([offer])
    found = outcomes(decision, offer, {"suffix": 2, "model": 1})
    selector.observe(found)
    before = cells(selector)
    selector.observe(found)
    selector.observe([Outcome(10**6, 0, "model", 3, 3), Outcome(-1, 0, "model", 3, 3)])
    selector.observe([Outcome(decision.id, decision.table_version + 9, "model", 3, 3)])
    assert cells(selector) == before


@every_rule
def test_decisions_of_another_incarnation_are_passed_over(name: str) -> None:
    old, new = make(name), make(name, incarnation=1)
    offer = context(suffix=4, model=4)
    (decision,) = old.choose([offer])
    new.choose([offer])
    before = cells(new)
    new.observe(outcomes(decision, offer, {"suffix": 2, "model": 1}))
    assert cells(new) == before


@every_rule
def test_a_sequence_that_ended_in_the_draft_teaches_nothing(name: str) -> None:
    selector = make(name)
    (decision,) = selector.choose([context(suffix=4, model=4)])
    before = cells(selector)
    selector.observe([Outcome.of(decision, 0, is_cut=True)])
    assert cells(selector) == before


@every_rule
def test_what_fell_out_of_the_ledger_is_passed_over(name: str) -> None:
    selector = make(name, ledger_size=4)
    offer = context(suffix=4, model=4)
    (decision,) = selector.choose([offer])
    for _ in range(4):
        selector.choose([offer])
    before = cells(selector)
    selector.observe(outcomes(decision, offer, {"suffix": 2, "model": 1}))
    assert cells(selector) == before


@every_rule
def test_requests_learn_apart_and_are_forgotten(name: str) -> None:
    selector = make(name, "request")
    learn(selector, 1000, {"suffix": 0, "model": 3})
    assert shares(selector, context("a", suffix=4, model=4)).get("model", 0) > 0.6
    assert shares(selector, context("b", suffix=4, model=4), 20).get("model", 0) < 1
    (late,) = selector.choose([context("a", suffix=4, model=4)])
    selector.forget(["a", "unknown"])
    selector.choose([context("c", suffix=4, model=4)])
    selector.observe([Outcome.of(late, late.draft_length)])
    assert selector.take() == {}


@every_rule
def test_tenants_learn_apart(name: str) -> None:
    selector = make(name, "tenant")
    learn(selector, 1000, {"suffix": 0, "model": 3})
    sums = {key: value for key, value in cells(selector).items() if value}
    assert {tenant for tenant, *_ in sums} == {"t"}


@every_rule
def test_sums_of_others_are_worth_as_much_as_ones_own(name: str) -> None:
    taught, fresh = make(name), make(name)
    learn(taught, 1000, {"suffix": 0, "model": 3})
    shares(fresh, context(suffix=4, model=4), 1)
    fresh.take()
    fresh.use(taught.take(), np.zeros_like(taught.sums[""]))
    assert cells(fresh) == cells(taught)
    assert shares(fresh, context(suffix=4, model=4))["model"] > 0.6


@every_rule
def test_two_that_share_come_to_the_state_of_one(name: str) -> None:
    """What each took is added up; what neither has taken yet is its own."""
    first, second, total = make(name), make(name), np.zeros((3, len(ARMS)))
    for _ in range(20):
        for selector in (first, second):
            learn(selector, 10, {"suffix": 1, "model": 2})
        for selector in (first, second):
            total = total + selector.take().get("", 0.0)
        for selector in (first, second):
            selector.use({"": total}, total)
    assert first.sums[""] == pytest.approx(second.sums[""])
    assert first.sums[""][0].sum() == pytest.approx(400)
    learn(first, 1, {"suffix": 1, "model": 2})
    assert first.take()[""][0].sum() == pytest.approx(1)
    assert first.sums[""][0].sum() == pytest.approx(second.sums[""][0].sum() + 1)


@every_rule
def test_what_is_damaged_does_no_harm(name: str) -> None:
    selector = make(name, "tenant")
    selector.use({}, np.full((3, len(ARMS)), -1e9))
    decisions = selector.choose([context(suffix=4, model=4)] * 9)
    assert all(0 < decision.probability <= 1 for decision in decisions)


@every_rule
def test_arms_come_and_go_and_the_others_keep_what_they_know(name: str) -> None:
    selector = make(name)
    learn(selector, 400, {"suffix": 0, "model": 3})
    (open_decision,) = selector.choose([context(suffix=4, model=4)])
    before = cells(selector)
    selector.use_arms(Arms({"model": (3,), "new": (4,)}), PRICES)
    after = cells(selector)
    assert {k: v for k, v in after.items() if k[1] in ("", "model")} == {
        k: v for k, v in before.items() if k[1] in ("", "model")
    }
    selector.observe([Outcome.of(open_decision, open_decision.draft_length)])
    assert cells(selector) == after
    decisions = selector.choose([context(str(i), suffix=4, model=4, new=4) for i in range(99)])
    assert {d.drafter for d in decisions} <= {None, "model", "new"}


@pytest.mark.parametrize(("field", "value"), [("loss", "words"), ("scope", "world")])
def test_settings_that_mean_nothing_are_refused_by_name(field: str, value: str) -> None:
    settings = Learning(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{field}: '{value}'"):
        LearningSelector(ARMS, Hedge(), PRICES, np.random.default_rng(0), settings)


def test_an_arm_without_length_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="draft lengths of model"):
        Arms({"model": (0, 3)})
