"""Drafters that come and go between two rounds, under live streams: no token changes."""

from __future__ import annotations

import functools
import gc
import random
import weakref
from collections.abc import Mapping, Sequence

import pytest
from hosting import OverZmq
from tiny_models import ids_of, run_all, tiny_engine
from tiny_requests import DRAFTERS, drafter, request

from cluster.settings import TargetSettings
from deployments.selectors import Selectors
from engine.drafters.drafter import Draft, Drafter, DraftRequest
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.engine import Engine
from engine.request import DrafterUse
from policies.fixed import FixedSelector
from policies.survival import SurvivalSelector

REQUESTS = [request(i, (0.0, 0.8)[i % 2], max_tokens=32, ignore_eos=True) for i in range(6)]
LONGEST = 6


class World:
    """An engine whose target keeps its states, and selectors that follow its drafters."""

    def __init__(self, section: Mapping[str, object]) -> None:
        self.engine = tiny_engine([drafter("head", LONGEST)])
        self.selectors = Selectors({"head": LONGEST}, self.engine.costs)
        settings = TargetSettings.model_validate({"selector": section})
        self.engine.use_selectors(*self.selectors.build(settings))

    def use(self, drafters: Sequence[Drafter]) -> None:
        self.engine.use_drafters(drafters)
        self.selectors.use_drafters({each.name: each.max_draft_length for each in drafters})


@functools.cache
def plain() -> dict[str, tuple[int, ...]]:
    return {name: ids_of(found) for name, found in run_all(tiny_engine(), REQUESTS).items()}


@pytest.mark.parametrize("name", ["survival", "hedge"])
def test_streams_stay_exact_while_drafters_come_and_go(name: str) -> None:
    rng, over_zmq = random.Random(7), OverZmq(lambda: drafter("prompt_lookup", LONGEST))
    world, present = World({"name": name}), list[Drafter]()
    said: dict[str, list[int]] = {each.sequence_id: [] for each in REQUESTS}
    waiting = list(REQUESTS)
    for number in range(1000):
        if number % 4 == 0:
            for gone in rng.sample(present, k=min(len(present), rng.randrange(3))):
                present.remove(gone)
            names = {each.name for each in present}
            for new in rng.sample(DRAFTERS, k=rng.randrange(3)):
                if new not in names:
                    is_far = new == "prompt_lookup" and rng.random() < 0.5
                    present.append(over_zmq() if is_far else drafter(new, LONGEST))
            world.use(present)
        if number % 3 == 0 and waiting:
            world.engine.submit(waiting.pop())
        for emission in world.engine.step():
            said[emission.sequence_id] += emission.token_ids
        if not world.engine.has_work and not waiting:
            break
    over_zmq.close()
    world.engine.check_integrity()
    assert {key: tuple(ids) for key, ids in said.items()} == plain()


def used(engine: Engine, name: str) -> DrafterUse:
    return engine.counters().per_drafter.get(name, DrafterUse())


@pytest.mark.parametrize("name", DRAFTERS)
def test_a_drafter_that_comes_later_drafts_for_streams_in_flight(name: str) -> None:
    engine = tiny_engine([drafter("head", LONGEST)])
    engine.use_selectors(FixedSelector(name, LONGEST), {})
    engine.use_drafters([])
    for each in REQUESTS:
        engine.submit(each)
    said: dict[str, list[int]] = {each.sequence_id: [] for each in REQUESTS}
    rounds = 0
    while engine.has_work:
        rounds += 1
        if rounds == 12:
            assert used(engine, name) == DrafterUse()
            engine.use_drafters([drafter(name, LONGEST)])
        for emission in engine.step():
            said[emission.sequence_id] += emission.token_ids
    assert used(engine, name).num_accepted_tokens > 0
    assert engine.counters().num_drafter_failures == {name: 0}
    assert {key: tuple(ids) for key, ids in said.items()} == plain()


class Failing(PromptLookupDrafter):
    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        raise RuntimeError("out of memory")


def started(*drafters: Drafter) -> Engine:
    """Some rounds later."""
    engine = tiny_engine(drafters)
    engine.use_selectors(FixedSelector("model", LONGEST), {})
    for each in REQUESTS:
        engine.submit(each)
    for _ in range(10):
        engine.step()
    return engine


def test_of_a_drafter_that_goes_nothing_is_left() -> None:
    goes = drafter("model", LONGEST)
    gone = weakref.ref(goes)
    engine = started(goes)
    del goes
    engine.use_drafters([])
    gc.collect()
    assert gone() is None
    assert engine.counters().drafter_states == {}


def test_a_drafter_that_stays_stays_as_it_is() -> None:
    stays = Failing("stays", LONGEST)
    engine = started(stays, drafter("model", LONGEST))
    failures = engine.counters().num_drafter_failures["stays"]
    assert failures >= 3
    engine.use_drafters([stays])
    assert engine.counters().drafter_states == {"stays": "resting"}
    assert engine.counters().num_drafter_failures == {"stays": failures}
    engine.use_drafters([PromptLookupDrafter("stays", LONGEST)])
    assert engine.counters().drafter_states == {"stays": "ready"}


def test_what_was_learnt_of_a_drafter_outlives_others_coming_and_going() -> None:
    world, lookup = World({"name": "survival"}), drafter("prompt_lookup", LONGEST)

    def learnt() -> tuple[float, float]:
        selector = world.selectors.shared[0].learner
        assert isinstance(selector, SurvivalSelector)
        place = selector.arms.index["prompt_lookup"]
        table = selector.table
        return table.num_at_risk[:, place].sum(), table.num_passed[:, place].sum()

    world.use([lookup])
    run_all(world.engine, REQUESTS)
    before = learnt()
    assert min(before) > 0
    for present in ([lookup, drafter("suffix", 2 * LONGEST)], [drafter("model", 2), lookup]):
        world.use(present)
        assert learnt() == before
    world.use([])
    world.use([lookup])
    assert learnt() == (0, 0)
