"""Counts by tenant and by place, and what hearing of unchosen drafters says."""

from __future__ import annotations

from engine.drafters.drafter import Outcome
from engine.hindsight import Evaluation, Hindsight
from engine.usage import MAX_TENANTS, OTHER_TENANTS, EngineUsage
from policies.selector import Decision


def test_tenants_beyond_the_first_few_are_counted_as_one() -> None:
    usage = EngineUsage()
    for i in range(MAX_TENANTS + 5):
        usage.add(f"tenant {i}", "lookup", 4, 2, 3)
    usage.add("tenant 0", None, 0, 0, 1)
    assert len(usage.per_tenant) == MAX_TENANTS + 1
    assert usage.per_tenant["tenant 0"].num_rounds == 2
    assert usage.per_tenant[OTHER_TENANTS].per_drafter["lookup"].num_rounds == 5
    assert usage.total.num_rounds == MAX_TENANTS + 6


def test_accepted_tokens_are_counted_by_their_place() -> None:
    usage = EngineUsage()
    for num_accepted in (0, 3, 1, 3):
        usage.add("a", "lookup", 4, num_accepted, num_accepted + 1)
    assert usage.num_accepted_at == (3, 2, 2)
    assert EngineUsage().num_accepted_at == ()


def test_a_drafter_is_compared_where_the_choice_came_to_something() -> None:
    hindsight = Hindsight(["a", "b"])
    decision = Decision("b", 4, id=1, evaluated=("a",))
    hindsight.compare("a", Evaluation(decision, 1), Outcome(10, 4, 3, False))
    hindsight.compare("a", Evaluation(decision), Outcome(11, 4, 4, False))
    hindsight.count_scoring("a", 2, 0.25)
    found = hindsight.per_drafter["a"]
    assert (found.num_compared, found.num_accepted, found.num_accepted_of_chosen) == (1, 3, 1)
    assert (found.num_evaluations, found.seconds) == (2, 0.25)


def test_a_drafter_that_nobody_hears_of_is_seen() -> None:
    hindsight = Hindsight(["a", "b"])
    for _ in range(5):
        hindsight.count_decision()
        hindsight.hear("a")
    assert hindsight.per_drafter["a"].num_decisions_unheard == 0
    assert hindsight.per_drafter["b"].num_decisions_unheard == 5


def test_a_drafter_that_comes_later_is_counted_from_then_on() -> None:
    hindsight = Hindsight(["first"])
    hindsight.count_decision()
    hindsight.count_scoring("later", 3, 0.5)
    found = hindsight.per_drafter["later"]
    assert (found.num_evaluations, found.seconds) == (3, 0.5)
    assert hindsight.per_drafter["first"].num_evaluations == 0
