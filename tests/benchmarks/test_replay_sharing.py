"""A tenant beside a hostile one decodes as fast as alone, by the replay that measures it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import replay_tenants
from benchmarks.replay_prices import make_arms, make_prices
from benchmarks.replay_sharing import ATTACKS, poison
from benchmarks.replay_simulator import Setting
from benchmarks.replay_traces import Trace
from cluster.statistics.survival import Weights

NUM_TOKENS = 150


def trace(generator: np.random.Generator) -> Trace:
    """A lookup that is right if it matches long, and a model that is right every other time."""
    matches = np.where(generator.random(NUM_TOKENS) < 0.5, 12, 2)
    lookup = np.where(matches > 8, generator.integers(4, 9, NUM_TOKENS), 0)
    model = generator.geometric(0.5, NUM_TOKENS) - 1
    offered = np.full(NUM_TOKENS, 10)
    return Trace(
        "domain",
        NUM_TOKENS,
        {"ngram": lookup, "eagle": np.minimum(model, 10)},
        {"ngram": offered, "eagle": offered},
        {"ngram": matches},
        {},
    )


@pytest.fixture(scope="module")
def sample() -> list[Trace]:
    generator = np.random.default_rng(0)
    return [trace(generator) for _ in range(120)]


@pytest.fixture(scope="module")
def setting() -> Setting:
    arms = make_arms()
    return Setting(arms, make_prices(arms, 8), 8)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_tenant_neither_slows_a_victim_nor_moves_its_choices(
    sample: list[Trace], setting: Setting, attack: str
) -> None:
    speed, moved = poison(sample, attack, setting, seed=0)
    assert speed >= 0.98
    assert moved <= 2.0 + poison(sample, "alone, other draws", setting, seed=0)[1]


def test_without_the_clip_it_would(
    sample: list[Trace], setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_tenants, "WEIGHTS", Weights(tenant=1e9, shared=1e9))
    speeds = [poison(sample, attack, setting, seed=0)[0] for attack in ATTACKS]
    assert min(speeds) < 0.95
