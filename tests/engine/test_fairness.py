"""Turns among tenants: bounds on what each gets, quotas, priorities, whose room is taken."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_rounds import BLOCK_SIZE, Rounds, sequence

from engine.fair_queue import MAX_IDLE, OUTPUT_TOKEN_COST, PROMPT_TOKEN_COST, FairQueue
from engine.fair_share import divide
from engine.sequence import Sequence

LONGEST_PROMPT = 24


class Load:
    """Tenants that always have `depth` requests waiting, and the work that each of them got."""

    def __init__(self, rounds: Rounds, seed: int) -> None:
        self.rounds = rounds
        self.work: dict[str, float] = defaultdict(float)
        self._rng = random.Random(seed)
        self._numbers = iter(range(10**6))
        self._tokens = iter(range(0, 10**9, LONGEST_PROMPT))

    def request(self, tenant: str, weight: float = 1.0) -> Sequence:
        prompt, answer = self._rng.randint(1, LONGEST_PROMPT), self._rng.randint(1, 20)
        name, first = f"{next(self._numbers)}", next(self._tokens)
        return sequence(name, prompt, answer, tenant=tenant, first=first, weight=weight)

    def fill(self, tenant: str, depth: int, weight: float = 1.0) -> None:
        waiting = sum(s.request.tenant == tenant for s in self.rounds.scheduler.waiting)
        for _ in range(depth - waiting):
            self.rounds.add(self.request(tenant, weight))

    def play(self) -> None:
        """One round, counted by what the sequences became."""
        scheduler = self.rounds.scheduler
        live = [*scheduler.waiting, *scheduler.running]
        before = {s.id: (s.num_generated, s.num_cached_tokens) for s in live}
        self.rounds.play()
        for each in live:
            num_generated, num_cached = before[each.id]
            work = OUTPUT_TOKEN_COST * (each.num_generated - num_generated)
            if num_cached is None and each.num_cached_tokens is not None:
                work += PROMPT_TOKEN_COST * (each.num_prompt_tokens - each.num_cached_tokens)
            self.work[each.request.tenant] += work


def samples(load: Load, weights: dict[str, float], depth: int = 3) -> Iterator[dict[str, float]]:
    """What each tenant got for its weight, after each of many rounds of steady demand."""
    while True:
        for tenant, weight in weights.items():
            load.fill(tenant, depth, weight)
        load.play()
        yield {tenant: load.work[tenant] / weight for tenant, weight in weights.items()}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=4),
    num_blocks=st.integers(14, 60),
    max_num_sequences=st.integers(1, 8),
)
def test_no_two_tenants_with_demand_drift_apart(
    seed: int, weights: list[float], num_blocks: int, max_num_sequences: int
) -> None:
    """The paper's theorem 4.4 with weights, in every sample: over any interval two tenants that
    always have something waiting get the same but for 2 max(w_p L, w_q M)."""
    rounds = Rounds(num_blocks, max_num_sequences, max_batch_tokens=32)
    named = {f"t{i}": weight for i, weight in enumerate(weights)}
    most_in_batch = OUTPUT_TOKEN_COST * num_blocks * BLOCK_SIZE
    bound = 2 * max(PROMPT_TOKEN_COST * LONGEST_PROMPT, most_in_batch) / min(weights)
    lowest: dict[tuple[str, str], float] = {}
    found = samples(Load(rounds, seed), named)
    for _ in range(250):
        got = next(found)
        for one in named:
            for other in named:
                gap = got[one] - got[other]
                lowest[one, other] = min(gap, lowest.get((one, other), 0.0))
                assert gap - lowest[one, other] <= bound


def test_work_is_divided_by_weight() -> None:
    load = Load(Rounds(40, 6, 32), seed=1)
    found = samples(load, {"small": 1.0, "large": 3.0})
    for _ in range(3000):
        next(found)
    assert load.work["large"] / load.work["small"] == pytest.approx(3.0, rel=0.02)


def test_a_tenant_that_sends_twenty_times_as_much_takes_nothing_from_another() -> None:
    """The victim keeps at least 95 % of what it gets beside one that asks for no more than it."""
    shares = {}
    for factor in (1, 20):
        load = Load(Rounds(40, 8, 32), seed=2)
        for _ in range(2500):
            load.fill("victim", 4)
            load.fill("greedy", 4 * factor)
            load.play()
        shares[factor] = load.work["victim"] / sum(load.work.values())
    assert shares[1] == pytest.approx(0.5, abs=0.02)
    assert shares[20] >= 0.95 * 0.5


def test_a_tenant_whose_requests_all_run_loses_no_turns_between_them() -> None:
    """Its clients ask again when they are answered, so that nothing of it waits for long."""
    load = Load(Rounds(60, 8, 32), seed=3)
    live: list[Sequence] = []
    for _ in range(2500):
        live = [each for each in live if each.finish_reason is None]
        while len(live) < 4:
            live.append(load.request("victim"))
            load.rounds.add(live[-1])
        load.fill("greedy", 80)
        load.play()
    assert load.work["victim"] / sum(load.work.values()) >= 0.97 * 0.5


def test_a_lone_request_starts_at_once_beside_a_tenant_that_holds_every_place() -> None:
    rounds = Rounds(num_blocks=60, max_num_sequences=4)
    rounds.add(*(sequence(f"g{i}", 8, 100, tenant="greedy", first=99 * i) for i in range(30)))
    for _ in range(5):
        rounds.play()
    rounds.add(sequence("v", 8, 3, tenant="victim", first=5000))
    rounds.play()
    assert "v" in rounds.play()
    assert rounds.scheduler.num_preemptions == 1
    for _ in range(2):
        rounds.play()
    assert rounds.finished == ["v"]


def test_long_prompts_of_one_tenant_do_not_hold_up_another_s_short_one() -> None:
    rounds = Rounds(num_blocks=200, max_batch_tokens=16)
    rounds.add(*(sequence(f"g{i}", 160, 4, tenant="long", first=999 * i) for i in range(4)))
    rounds.play()
    rounds.add(sequence("v", 8, 1, tenant="short", first=9000))
    assert [(step.sequence.id, step.num_new) for step in rounds.plan()] == [("g0", 8), ("v", 8)]


def test_prompts_of_who_runs_most_wait_for_another_s_first_token_one_step_in_two() -> None:
    rounds = Rounds(num_blocks=200, max_num_sequences=8)
    rounds.add(*(sequence(f"g{i}", 8, 40, tenant="greedy", first=999 * i) for i in range(3)))
    rounds.play()
    rounds.add(sequence("g3", 8, 1, tenant="greedy", first=9000))
    prefilled = []
    for number in range(4):
        rounds.add(sequence(f"v{number}", 8, 1, tenant="victim", first=9100 + 99 * number))
        prefilled.append([name for name in rounds.play() if name not in ("g0", "g1", "g2")])
    assert prefilled == [["v0"], ["g3", "v1"], ["v2"], ["v3"]]


def test_what_is_divided_is_divided_by_weight_and_nothing_is_left_over() -> None:
    weights = {"a": 1.0, "b": 3.0, "c": 2.0}
    assert divide(12, {"a": 50, "b": 50, "c": 50}, weights) == {"a": 2, "b": 6, "c": 4}
    assert divide(12, {"a": 50, "b": 1, "c": 50}, weights) == {"b": 1, "a": 4, "c": 7}
    assert divide(12, {"a": 2, "b": 3}, weights) == {"a": 2, "b": 3}
    assert divide(1, {"a": 50, "b": 50, "c": 50}, weights) == {"a": 0, "b": 0, "c": 1}
    for whole in range(40):
        assert sum(divide(whole, {"a": 9, "b": 9, "c": 9}, weights).values()) == min(whole, 27)


def test_who_was_away_gets_no_turns_for_that() -> None:
    load = Load(Rounds(40, 4, 32), seed=3)
    steady = samples(load, {"steady": 1.0})
    for _ in range(500):
        next(steady)
    both = samples(load, {"steady": 1.0, "late": 1.0})
    before = load.work["steady"]
    for _ in range(500):
        next(both)
    assert load.work["late"] == pytest.approx(load.work["steady"] - before, rel=0.15)


def test_one_place_is_taken_in_turns() -> None:
    rounds = Rounds(max_num_sequences=1)
    for tenant in "ab":
        rounds.add(*(sequence(f"{tenant}{i}", 4, 4, tenant=tenant) for i in range(4)))
    rounds.play_out()
    assert rounds.finished == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]


def test_an_urgent_request_goes_before_its_tenant_s_others_and_no_one_else_s() -> None:
    rounds = Rounds(max_num_sequences=1)
    rounds.add(sequence("a0", 4), sequence("a1", 4), sequence("b0", 4, tenant="b"))
    rounds.add(sequence("urgent", 4, priority=-1), sequence("idle", 4, priority=1))
    rounds.play_out()
    assert rounds.finished == ["b0", "urgent", "a0", "a1", "idle"]


def test_the_least_urgent_gives_way_first() -> None:
    rounds = Rounds(num_blocks=6)
    rounds.add(sequence("a", 3, 12, priority=1), sequence("b", 3, 12, first=50))
    rounds.add(sequence("c", 3, 12, first=90))
    while not rounds.scheduler.num_preemptions:
        rounds.play()
    assert [waiting.id for waiting in rounds.scheduler.waiting] == ["a"]
    rounds.play_out()


def test_room_is_taken_from_whoever_holds_most_for_its_weight() -> None:
    rounds = Rounds(num_blocks=12)
    rounds.add(sequence("old", 10, 30, tenant="wide"), sequence("new", 3, 30, tenant="narrow"))
    rounds.add(sequence("rich", 12, 30, tenant="rich", weight=10.0, first=500))
    while not rounds.scheduler.num_preemptions:
        rounds.play()
    assert [waiting.id for waiting in rounds.scheduler.waiting] == ["old"]
    rounds.play_out()
    assert sorted(rounds.finished) == ["new", "old", "rich"]


def test_a_tenant_within_its_share_claims_blocks_from_one_beyond() -> None:
    rounds = Rounds(num_blocks=20, max_num_sequences=16)
    rounds.add(*(sequence(f"g{i}", 7, 60, tenant="greedy", first=99 * i) for i in range(9)))
    for _ in range(4):
        rounds.play()
    assert rounds.pool.num_available < 8
    rounds.add(sequence("v", 30, 4, tenant="victim", first=5000))
    rounds.play()
    rounds.play()
    assert any(running.id == "v" for running in rounds.scheduler.running)
    rounds.play_out()


def test_a_quota_bounds_the_blocks_of_all_of_a_tenant_s_sequences() -> None:
    rounds = Rounds(num_blocks=64)
    quota: dict[str, Any] = {"tenant": "small", "kv_quota_tokens": 40}
    rounds.add(*(sequence(f"s{i}", 9, 12, first=99 * i, **quota) for i in range(6)))
    rounds.add(sequence("other", 9, 12, first=5000))
    assert "other" in rounds.play()
    for _ in range(400):
        held = [s.block_table for s in rounds.scheduler.running if s.request.tenant == "small"]
        assert len({block for table in held for block in table}) <= 10
        if rounds.scheduler.waiting or rounds.scheduler.running:
            rounds.play(draft_length=6)
    assert len(rounds.finished) == 7


def test_choices_of_one_prompt_count_their_shared_blocks_once() -> None:
    rounds = Rounds(num_blocks=64, max_batch_tokens=64)
    options: dict[str, Any] = {"leader": "n0", "kv_quota_tokens": 60}
    rounds.add(*(sequence(f"n{i}", 33, 4, **options) for i in range(4)))
    rounds.play()
    rounds.play()
    assert len(rounds.scheduler.running) == 4
    rounds.play_out()


@pytest.mark.parametrize("capacity", [1, 2, 7, 100])
def test_a_full_queue_still_has_a_place_for_another_tenant(capacity: int) -> None:
    queue = FairQueue()
    numbers = iter(range(1000))
    while queue.has_room("greedy", capacity):
        queue.add(sequence(f"{next(numbers)}", 1, tenant="greedy"))
    assert len(queue) == capacity // 2 + 1
    assert queue.has_room("other", capacity) == (capacity > 2)
    assert not queue.has_room("new", capacity, num_coming=capacity)
    while any(queue.has_room(f"t{i}", capacity) for i in range(capacity)):
        tenant = next(f"t{i}" for i in range(capacity) if queue.has_room(f"t{i}", capacity))
        queue.add(sequence(f"{next(numbers)}", 1, tenant=tenant))
    assert len(queue) == capacity


def test_tenants_with_nothing_to_do_are_forgotten_in_the_end() -> None:
    queue = FairQueue()
    for i in range(MAX_IDLE + 50):
        added = sequence(f"{i}", 1, tenant=f"{i}")
        queue.add(added)
        queue.take(added)
        queue.charge(added, 5.0)
        queue.leave(added)
    assert len(queue._idle) <= MAX_IDLE
    assert not queue.weights
