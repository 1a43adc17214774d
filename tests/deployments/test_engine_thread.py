"""The engine's thread: calls, rounds, and how it ends."""

from __future__ import annotations

import pytest
from fake_serving import IdleEngine

from deployments.engine_thread import EngineStoppedError, EngineThread


def test_a_call_returns_raises_and_ends_with_the_thread() -> None:
    thread = EngineThread(IdleEngine())
    assert thread.call(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0)
    thread.stop()
    with pytest.raises(EngineStoppedError):
        thread.call(lambda: 5)
