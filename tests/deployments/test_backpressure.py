"""How many requests are refused before they cost anything, and that no answer is lost by it."""

from __future__ import annotations

import random

import pytest

from deployments.backpressure import MAX_TENANTS, MEMORY_S, Backpressure
from deployments.errors import OverloadedError


class World:
    """A target with a queue of 32 that answers 10 requests a second."""

    def __init__(self) -> None:
        rng = random.Random(5)
        self.now_s, self.waiting, self.rng = 0.0, 0.0, rng
        self.backpressure = Backpressure(lambda: self.now_s, rng.random)
        self.num_early = self.num_full = self.num_taken = 0

    def run(self, rate_per_s: float, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            gap_s = self.rng.expovariate(rate_per_s)
            self.now_s += gap_s
            self.waiting = max(0.0, self.waiting - 10 * gap_s)
            self.arrive()

    def arrive(self) -> None:
        try:
            self.backpressure.check("a")
        except OverloadedError:
            self.num_early += 1
            return
        is_full = self.waiting + 1 > 32
        self.backpressure.note("a", is_full)
        self.num_full += is_full
        self.num_taken += not is_full
        self.waiting += not is_full


def test_below_its_peak_a_target_refuses_nobody_and_neither_does_this() -> None:
    world = World()
    world.run(5.0, 100.0)
    assert (world.num_early, world.num_full) == (0, 0)


def test_at_ten_times_the_peak_most_are_refused_early_and_the_queue_stays_full() -> None:
    world = World()
    world.run(100.0, 60.0)
    num = world.num_early + world.num_full + world.num_taken
    assert world.num_early / num == pytest.approx(0.65, abs=0.05)
    assert world.num_taken >= 0.98 * (600 + 32 - 10)
    assert world.waiting > 25


def test_when_the_flood_is_over_everybody_gets_in_again() -> None:
    world = World()
    world.run(100.0, 10.0)
    world.now_s += MEMORY_S + 10
    world.waiting = 0.0
    before = world.num_early
    world.run(5.0, 50.0)
    assert world.num_early == before


def test_one_tenants_flood_closes_the_door_before_nobody_else() -> None:
    world = World()
    world.run(100.0, 10.0)
    before = world.num_early
    for _ in range(100):
        world.arrive()
    assert world.num_early - before > 30
    for _ in range(100):
        world.backpressure.check("b")


def test_tenants_whom_nothing_refuses_any_more_are_forgotten() -> None:
    world = World()
    for i in range(3 * MAX_TENANTS):
        world.now_s += 2 * MEMORY_S / MAX_TENANTS
        world.backpressure.note(f"tenant-{i}", is_full=True)
    assert len(world.backpressure._refused) <= MAX_TENANTS
