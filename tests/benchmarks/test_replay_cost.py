"""The selectors' own cost is measured on what an engine step looks like."""

from __future__ import annotations

import pytest

from benchmarks.replay_cost import RULES, make, measure


@pytest.mark.parametrize("name", ["survival", *RULES])
def test_every_selector_is_measured(name: str) -> None:
    us_per_sequence, kib_held = measure(lambda n: make(name, n), 3, 2)
    assert us_per_sequence > 0
    assert kib_held > 1
