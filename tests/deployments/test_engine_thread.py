"""The engine's thread: calls and rounds, what it leaves behind, and how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

import pytest
from fake_serving import IdleEngine, request
from http_calls import run

from deployments.engine_thread import EngineStoppedError, EngineThread
from deployments.thread_priority import NICENESS
from engine.errors import CapacityError


def test_a_call_returns_raises_and_ends_with_the_thread() -> None:
    thread = EngineThread(IdleEngine())
    assert thread.call(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0)
    thread.stop()
    with pytest.raises(EngineStoppedError):
        thread.call(lambda: 5)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_it_gives_way_to_those_that_answer_clients() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness()
    thread = EngineThread(IdleEngine())
    assert thread.call(niceness) == max(own, NICENESS)
    assert niceness() == own
    thread.stop()


def test_a_cancelled_submission_leaves_nothing_behind(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            thread = EngineThread(server.engine)
            task = asyncio.ensure_future(anext(thread.generate([request("a", 10**6)])))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await thread.run(lambda: None)
            assert not server.engine.live
            thread.stop()

    run(test)


def test_what_the_queue_has_is_not_on_its_way_any_more(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with serving() as server:
            engine, coming = server.engine, list[int]()
            monkeypatch.setattr(engine, "check_room", lambda tenant, num: coming.append(num))
            thread = EngineThread(engine)
            first = asyncio.ensure_future(anext(thread.generate([request("a", 10**6)])))
            await asyncio.sleep(0)
            deadline_s = time.monotonic() + 10
            while not engine.seen:  # the loop cannot tell the first that it is in
                assert time.monotonic() < deadline_s
            await anext(thread.generate([request("b", 10**6)]))
            await first
            assert coming == [0, 0]
            thread.stop()

    run(test)


def test_a_stopped_thread_says_so(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            thread = EngineThread(server.engine)
            thread.stop()
            with pytest.raises(EngineStoppedError, match="stopped"):
                await thread.run(lambda: None)

    run(test)


def test_an_error_of_a_command_reaches_its_caller_and_nobody_else(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            thread = EngineThread(server.engine)

            def fail() -> None:
                raise CapacityError("x", 2, 1)

            with pytest.raises(CapacityError):
                await thread.run(fail)
            thread.check()
            thread.stop()

    run(test)
