"""Learners of several processes that share a store: warm starts, outages, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
from statistics_world import HALF_LIFE_S, FaultyStore, World

from cluster.statistics.arrays import learner_layout, survival_layout
from cluster.statistics.breaker import LONGEST_PAUSE_S
from cluster.statistics.learning import LearningExchange, SharedLearner
from cluster.statistics.survival import Weights
from policies.arms import Arms
from policies.exp3spec import Exp3Spec
from policies.features import Features
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Rule
from policies.normalhedge import NormalHedge
from policies.prices import FixedPrices
from policies.rows import Scope
from policies.selector import Context, Outcome
from policies.survival import Survival, SurvivalSelector
from policies.ucbspec import UcbSpec

T = TypeVar("T")
ARMS = Arms({"lookup": (1, 2, 4, 8)})
PRICES = FixedPrices(np.tile(1 + 0.1 * np.arange(9), (2, 1)), np.array([0.0, 0.01]))
RULES: dict[str, Callable[[], Rule]] = {
    "ucbspec": UcbSpec,
    "exp3spec": Exp3Spec,
    "hedge": Hedge,
    "normalhedge": NormalHedge,
}


def at_once(function: Callable[[], T], /) -> T:
    return function()


class Process:
    """A target's learner, and its exchange."""

    def __init__(self, world: World, store: FaultyStore, learner: SharedLearner) -> None:
        self.selector = learner.learner
        self.exchange = LearningExchange(
            world.exchange(store), HALF_LIFE_S, Weights(1000.0, 32.0), at_once
        )
        self.exchange.follow([learner])


def survival() -> SharedLearner:
    selector = SurvivalSelector(ARMS, PRICES, np.random.default_rng(0), Survival("tenant"))
    layout = survival_layout(ARMS.names, Features().num_cells, ARMS.max_length)
    return SharedLearner(selector, layout, leans_on_others=True)


def paper(name: str, scope: Scope) -> SharedLearner:
    generator = np.random.default_rng(0)
    selector = LearningSelector(ARMS, RULES[name](), PRICES, generator, Learning("tokens", scope))
    layout = learner_layout(name, selector.sum_names, ARMS.keys)
    return SharedLearner(selector, layout, leans_on_others=False)


def context(tenant: str = "t") -> Context:
    return Context(tenant, tenant, {"lookup": 8}, {"lookup": 9})


def learn(process: Process, accepted: int, num_rounds: int, tenant: str = "t") -> None:
    """Every draft has `accepted` tokens accepted, or all it has."""
    selector = process.selector
    assert isinstance(selector, SurvivalSelector | LearningSelector)
    for _ in range(num_rounds):
        (decision,) = selector.choose([context(tenant)])
        found = [Outcome.of(decision, min(accepted, decision.draft_length))]
        for name in decision.evaluated:
            version = decision.table_version
            found.append(Outcome(decision.id, version, name, 8, min(accepted, 8)))
        selector.observe(found)


def draft_length(process: Process, tenant: str = "t") -> int:
    assert isinstance(process.selector, SurvivalSelector)
    return process.selector.choose([context(tenant)])[0].draft_length


def sums(process: Process) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    assert isinstance(process.selector, LearningSelector)
    (found,) = process.selector.sums.values()
    return found


def test_a_process_that_starts_again_knows_what_the_first_learnt(world: World) -> None:
    first = Process(world, world.store(), survival())
    assert draft_length(first) > 1
    learn(first, 0, 400)
    first.exchange.step()
    again = Process(world, world.store(), survival())
    again.exchange.step()
    assert draft_length(first) == draft_length(again) == 0


def test_what_one_learns_the_other_goes_by_in_two_steps(world: World) -> None:
    first, second = (Process(world, world.store(), survival()) for _ in range(2))
    assert draft_length(second) > 1
    learn(first, 0, 400)
    for _ in range(2):
        first.exchange.step()
        second.exchange.step()
    assert draft_length(second) == 0


def test_counts_are_neither_lost_nor_doubled_on_their_way(world: World) -> None:
    stores = [world.store() for _ in range(2)]
    processes = [Process(world, store, survival()) for store in stores]
    generator, num_rounds = np.random.default_rng(1), 0
    for _ in range(60):
        for process, store in zip(processes, stores, strict=True):
            store.fails, store.loses = (generator.random(2) < 0.2).tolist()
            learn(process, 2, 3)
            num_rounds += 3
            process.exchange.step()
            world.wait(0.25)
    for store in stores:
        store.fails = store.loses = False
    world.wait(LONGEST_PAUSE_S)
    for process in processes * 4:
        process.exchange.step()
    merged = world.merged()
    drafted = sum(count for name, count in merged.items() if name.endswith(":1:r"))
    assert 0 < drafted <= num_rounds
    for process in processes:
        assert isinstance(process.selector, SurvivalSelector)
        assert process.selector.table.num_at_risk[0, :, :, 0].sum() == pytest.approx(drafted)


def test_without_a_store_a_process_goes_on_learning_and_deciding(world: World) -> None:
    store = world.store()
    store.fails = True
    process = Process(world, store, survival())
    learn(process, 0, 400)
    assert not process.exchange.step()
    assert draft_length(process) == 0
    learn(process, 0, 10)
    store.fails = False
    world.wait(LONGEST_PAUSE_S)
    assert process.exchange.step()
    assert draft_length(process) == 0
    assert world.merged()["s:lookup:8:1:r"] >= 10


def test_a_tenant_that_is_new_everywhere_starts_from_the_others(world: World) -> None:
    first, second = (Process(world, world.store(), survival()) for _ in range(2))
    learn(first, 0, 400, "old")
    for process in (first, second):
        process.exchange.step()
        process.exchange.step()
    assert draft_length(second, "new") < draft_length(Process(world, world.store(), survival()))


@pytest.mark.parametrize("scope", ["tenant", "global"])
@pytest.mark.parametrize("name", RULES)
def test_learners_of_two_processes_come_to_the_state_of_one(
    world: World, name: str, scope: Scope
) -> None:
    first, second = (Process(world, world.store(), paper(name, scope)) for _ in range(2))
    for _ in range(20):
        for process in (first, second):
            learn(process, 3, 10)
            process.exchange.step()
    for process in (first, second) * 2:
        process.exchange.step()
    assert sums(first) == pytest.approx(sums(second), abs=1e-3)
    assert sums(first)[0].sum() == pytest.approx(400)
    again = Process(world, world.store(), paper(name, scope))
    learn(again, 3, 1)
    again.exchange.step()
    assert sums(again)[0].sum() == pytest.approx(401)


@pytest.mark.parametrize("name", RULES)
def test_sums_of_requests_stay_where_they_are(world: World, name: str) -> None:
    process = Process(world, world.store(), paper(name, "request"))
    learn(process, 3, 10)
    process.exchange.step()
    assert sums(process)[0].sum() == 10
    assert world.merged() == {}


def test_what_was_learnt_last_is_sent_in_the_end(world: World) -> None:
    process = Process(world, world.store(), survival())
    learn(process, 0, 5)
    assert process.exchange.finish()
    assert world.merged()["s:lookup:8:1:r"] == 5


def test_learners_that_come_later_are_told_all_there_is(world: World) -> None:
    first, second = (Process(world, world.store(), survival()) for _ in range(2))
    learn(first, 0, 400)
    first.exchange.step()
    second.exchange.step()
    second.exchange.step()
    learner = survival()
    second.selector = learner.learner
    second.exchange.follow([learner])
    second.exchange.step()
    assert draft_length(second) == 0
