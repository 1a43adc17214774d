"""What every learner keeps to: offers, masks, scopes, and feedback in any order, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from policies.arms import Arms
from policies.exp3spec import Exp3Spec
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Loss, Rule
from policies.normalhedge import NormalHedge
from policies.prices import FixedPrices
from policies.rows import Scope
from policies.selector import Context, Decision, Learner, Outcome
from policies.ucbspec import UcbSpec

ARMS = Arms({"suffix": (2, 4), "model": (3,)})
PRICES = FixedPrices(np.ones((3, 5)) + np.arange(5), np.ones(3))
RULES: Mapping[str, Callable[[], Rule]] = {
    "ucbspec": UcbSpec,
    "exp3spec": Exp3Spec,
    "hedge": Hedge,
    "normalhedge": NormalHedge,
}
BANDITS = ("ucbspec", "exp3spec")
every_rule = pytest.mark.parametrize("name", RULES)


def make(
    name: str, scope: Scope = "global", loss: Loss = "tokens", arms: Arms = ARMS, **settings: int
) -> LearningSelector:
    generator = np.random.default_rng(0)
    settings_ = Learning(loss, scope, **settings)
    return LearningSelector(arms, RULES[name](), PRICES, generator, settings_)


def context(sequence: str = "a", tenant: str = "t", **draft_lengths: int) -> Context:
    return Context(sequence, tenant, draft_lengths, {})


def outcomes(decision: Decision, context: Context, accepted: Mapping[str, int]) -> list[Outcome]:
    """The chosen draft's, and those of the evaluated drafters to their full length."""
    chosen = decision.drafter
    own = min(accepted.get(chosen or "", 0), decision.draft_length)
    found = [Outcome.of(decision, own)]
    for name in decision.evaluated:
        offered = context.draft_lengths[name]
        found.append(
            Outcome(
                decision.id, decision.table_version, name, offered, min(accepted[name], offered)
            )
        )
    return found


def learn(selector: LearningSelector, num_rounds: int, accepted: Mapping[str, int]) -> None:
    offer = context(suffix=4, model=4)
    for _ in range(num_rounds):
        (decision,) = selector.choose([offer])
        selector.observe(outcomes(decision, offer, accepted))


def cells(selector: LearningSelector) -> dict[tuple[str, str, int, str], int]:
    """Sums in millionths, by (tenant or "", drafter, draft length, sum); NormalHedge's regret as
    loss."""
    return {
        (key, drafter, length, name): round(sums[s, a] * 1e6)
        for key, sums in selector.sums.items()
        for s, name in enumerate(("chosen", "observed", "loss"))
        for a, (drafter, length) in enumerate(selector.arms.keys)
    }


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


@pytest.mark.parametrize(("field", "value"), [("loss", "words"), ("scope", "world")])
def test_settings_that_mean_nothing_are_refused_by_name(field: str, value: str) -> None:
    settings = Learning(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{field}: '{value}'"):
        LearningSelector(ARMS, Hedge(), PRICES, np.random.default_rng(0), settings)


def test_an_arm_without_length_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="draft lengths of model"):
        Arms({"model": (0, 3)})
