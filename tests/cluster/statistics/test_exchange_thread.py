"""How long an exchange's thread waits between two steps."""

from __future__ import annotations

import pytest

from cluster.statistics.exchange_thread import BUSY_SHARE, pause_between_steps_s


def test_one_long_step_among_short_ones_delays_nothing() -> None:
    assert pause_between_steps_s(0.25, 0.0, 3.0) == 0.25
    assert pause_between_steps_s(0.25, 3.0, 0.01) == 0.25


def test_long_steps_take_their_share_of_the_time_and_no_more() -> None:
    pause_s = pause_between_steps_s(0.25, 0.5, 0.4)
    assert 0.4 / (0.4 + pause_s) == pytest.approx(BUSY_SHARE)
