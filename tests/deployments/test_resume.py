"""Answers that lose their targets: nobody notices, until nothing more can be done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from http_calls import run
from lossy_targets import PULSE_S, SOON, choices, listen, replicas, undisturbed, until_idle

from cluster.settings import Resume
from deployments.resume import ResumingClient
from deployments.route import Route
from engine.request import Emission, GenerationRequest, SamplingParams


@pytest.mark.parametrize(
    "faults",
    [
        [(0, "dies")],
        [(1, "dies")],
        [(5, "dies"), (1, "dies"), (3, "dies")],
        [(4, "dies"), (0, "full"), (0, "full"), (6, "dies")],
        [(16, "dies"), (2, "dies")],
    ],
)
def test_no_token_is_lost_doubled_or_changed(faults: list[tuple[int, str]]) -> None:
    expected = undisturbed(choices())

    async def test() -> None:
        with replicas(*faults) as targets:
            said, last = await listen(ResumingClient(targets, SOON), choices())
        assert said == expected
        for name, each in last.items():
            assert each.use.num_emitted_tokens == len(expected[name].ids)
            assert each.use.num_rounds == each.use.num_emitted_tokens
            assert each.num_cached_tokens <= each.num_prompt_tokens
        assert len(targets.seen) == len(faults) + 1

    run(test)


def test_stop_strings_are_met_across_the_cut() -> None:
    whole = undisturbed(choices())
    stop = (whole["c0"].text[7:9], whole["c2"].text[11:14])
    expected = undisturbed(choices(stop=stop))
    assert expected["c0"].ends[-1] == "stop"

    async def test() -> None:
        with replicas((8, "dies"), (2, "dies")) as targets:
            said, _ = await listen(ResumingClient(targets, SOON), choices(stop=stop))
        assert {name: (each.ids, each.text) for name, each in said.items()} == {
            name: (each.ids, each.text) for name, each in expected.items()
        }

    run(test)


def test_a_silent_target_is_given_up_and_suspected() -> None:
    expected = undisturbed(choices())

    async def test() -> None:
        with replicas((6, "hangs")) as targets:
            client = ResumingClient(targets, Resume.model_construct(stall_timeout_s=1.5))
            said, _ = await listen(client, choices())
        assert said == expected
        assert targets.suspected == [Route("session", 0)]
        assert targets.routes == [Route("session", 0), Route("session", 1)]

    run(test)


def test_who_waits_in_a_queue_hears_that_the_target_is_alive() -> None:
    async def test() -> None:
        with replicas(count=1) as targets:
            (thread,) = targets.threads
            engine: Any = thread._engine
            engine._scheduler._max_num_sequences = 1
            busy = GenerationRequest("busy", (1, 2), 800, SamplingParams(), ignore_eos=True)
            first = thread.generate([busy])
            while not await anext(first):
                pass
            waiting = thread.generate(choices()[:1])
            assert [await anext(waiting) for _ in range(3)] == [[], [], []]
            assert engine.counters().num_waiting == 1
            await first.aclose()
            while not await anext(waiting):
                pass
            await waiting.aclose()

    run(test)


def test_a_target_that_is_heard_is_not_given_up() -> None:
    class Slow:
        num_attempts = 0

        async def generate(self, requests: Any, route: Any) -> AsyncGenerator[list[Emission], None]:
            self.num_attempts += 1
            for _ in range(6):
                await asyncio.sleep(0.5)
                yield []
            yield [Emission(requests[0].sequence_id, (1,), "", finish_reason="length")]

    async def test() -> None:
        source: Any = Slow()
        client = ResumingClient(source, Resume.model_construct(stall_timeout_s=2.0))
        said, _ = await listen(client, choices()[:1])
        assert said["c0"].ids == (1,)
        assert source.num_attempts == 1

    run(test)


def test_a_thread_that_hangs_falls_silent() -> None:
    async def test() -> None:
        with replicas(count=1) as targets:
            (thread,) = targets.threads
            goes_on = threading.Event()
            rounds = thread.generate(choices()[:1])
            assert await anext(rounds) == []

            def hang() -> None:
                goes_on.wait()

            async def listen_on() -> None:
                async for _ in rounds:
                    pass

            thread._commands.put(hang)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(listen_on(), 10 * PULSE_S)
            goes_on.set()

    run(test)


def test_hanging_up_ends_the_work_in_every_state() -> None:
    async def test() -> None:
        for num_items in range(6):
            with replicas((num_items, "hangs"), count=1) as targets:
                client = ResumingClient(targets, SOON)
                rounds = client.generate(choices())
                for _ in range(max(0, num_items - 2)):
                    await anext(rounds)
                await rounds.aclose()
                engine: Any = targets.threads[0]._engine
                await until_idle(targets)
                assert engine.counters().num_kv_blocks_used == 0

    run(test)


def test_an_answer_nobody_takes_is_put_down_and_taken_up_again() -> None:
    """It holds no cache meanwhile, and its client reads what it would have read."""
    expected = undisturbed(choices())

    async def test() -> None:
        with replicas(count=1) as targets:
            client = ResumingClient(targets, Resume(max_buffered_tokens=9))
            rounds = client.generate(choices(), Route("session"))
            said: dict[str, tuple[int, ...]] = dict.fromkeys(expected, ())
            engine: Any = targets.threads[0]._engine
            first = await anext(rounds)
            await until_idle(targets)
            assert engine.counters().num_kv_blocks_used == 0
            assert engine.counters().num_emitted_tokens < 9 + 4 * 3
            for each in first:
                said[each.sequence_id] += each.token_ids
            async for emissions in rounds:
                for each in emissions:
                    said[each.sequence_id] += each.token_ids
        assert said == {name: each.ids for name, each in expected.items()}
        assert len(targets.seen) >= 2
        assert {route.attempt for route in targets.routes} == {0}

    run(test)
