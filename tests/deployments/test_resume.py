"""Answers that lose their targets: nobody notices, until nothing more can be done."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from tiny_models import tiny_engine

from cluster.config import IngressSettings, Resume
from deployments.engine_thread import EngineThread
from deployments.model_card import ModelCard
from deployments.refusal import Refusal, RefusedError
from deployments.resume import ResumingClient
from deployments.route import ANYWHERE, Route, Suspicion, beginning_of, ranked, session_of
from deployments.target_client import TargetFailedError
from deployments.target_counters import TargetCounters
from engine.request import Emission, GenerationRequest, SamplingParams, TokenLogprob

PULSE_S = 0.02
SOON = Resume(stall_timeout_s=3.0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 60)

    asyncio.run(bounded())


@dataclass
class Replicas:
    """Targets that fail as `faults` says: (after so many items, how), one for each attempt."""

    threads: Sequence[EngineThread]
    faults: Iterator[tuple[int, str]]
    seen: list[list[GenerationRequest]] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    suspected: list[Route] = field(default_factory=list)

    async def describe(self) -> ModelCard:
        raise NotImplementedError

    async def counters(self) -> list[TargetCounters]:
        return []

    def suspect(self, route: Route) -> None:
        self.suspected.append(route)

    @property
    def has_others(self) -> bool:
        return len(self.threads) > 1

    async def generate(
        self, requests: Sequence[GenerationRequest], route: Route = ANYWHERE
    ) -> AsyncGenerator[list[Emission], None]:
        self.seen.append(list(requests))
        self.routes.append(route)
        num_items, fault = next(self.faults, (10**9, ""))
        rounds = self.threads[route.attempt % len(self.threads)].generate(requests)
        try:
            for i in itertools.count():
                if i == num_items:
                    await fail(fault)
                try:
                    emissions = await anext(rounds)
                except StopAsyncIteration:
                    return
                yield emissions
        finally:
            await rounds.aclose()


async def until_idle(targets: Replicas) -> None:
    thread = targets.threads[0]
    while await thread.run(lambda: thread._engine.has_work):
        pass


async def fail(fault: str) -> None:
    if fault == "dies":
        raise ConnectionError("the actor died")
    if fault == "breaks":
        raise TargetFailedError("KeyError")
    if fault == "full":
        raise RefusedError(Refusal("full", None, "the queue is full"))
    if fault == "invalid":
        raise RefusedError(Refusal("invalid", "stop", "too many"))
    await asyncio.Event().wait()


@contextmanager
def replicas(*faults: tuple[int, str], count: int = 2) -> Iterator[Replicas]:
    threads = [EngineThread(tiny_engine(), PULSE_S) for _ in range(count)]
    try:
        yield Replicas(threads, iter(faults))
    finally:
        for thread in threads:
            thread.stop()


def choices(**options: Any) -> list[GenerationRequest]:
    """Three answers to one prompt, of different lengths."""
    return [
        GenerationRequest(
            f"c{i}",
            (5, 9, 11, 5, 9),
            12 + 5 * i,
            SamplingParams(seed=40 + i, temperature=0.9, logprobs=2, presence_penalty=0.3),
            leader_id="c0" if i else None,
            ignore_eos=True,
            **options,
        )
        for i in range(3)
    ]


@dataclass
class Said:
    ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    ends: tuple[str | None, ...] = ()
    num_prompt_tokens: int = 0


async def listen(
    client: ResumingClient, requests: Sequence[GenerationRequest]
) -> tuple[dict[str, Said], dict[str, Emission]]:
    said = {request.sequence_id: Said() for request in requests}
    last: dict[str, Emission] = {}
    async for emissions in client.generate(requests, Route("session")):
        assert emissions
        for each in emissions:
            so_far = said[each.sequence_id]
            said[each.sequence_id] = Said(
                so_far.ids + each.token_ids,
                so_far.text + each.text,
                so_far.logprobs + each.logprobs,
                (*so_far.ends, each.finish_reason),
                each.num_prompt_tokens,
            )
            last[each.sequence_id] = each
    return said, last


def undisturbed(requests: Sequence[GenerationRequest]) -> dict[str, Said]:
    with replicas() as targets:
        said, _ = asyncio.run(listen(ResumingClient(targets, SOON), requests))
    return said


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


def test_a_request_that_ends_every_target_ends_itself() -> None:
    async def test() -> None:
        with replicas(*[(2, "dies")] * 20) as targets:
            client = ResumingClient(targets, Resume(max_losses=3))
            with pytest.raises(ConnectionError):
                await listen(client, choices())
        assert len(targets.seen) == 4

    run(test)


def test_a_request_that_no_target_can_take_ends() -> None:
    """Each answers at once, with an error of its own."""

    async def test() -> None:
        with replicas(*[(0, "breaks")] * 20) as targets:
            client = ResumingClient(targets, Resume(max_losses=3))
            with pytest.raises(TargetFailedError):
                await listen(client, choices())
        assert len(targets.seen) == 4

    run(test)


def test_a_full_target_s_refusal_is_the_caller_s_where_there_is_no_other() -> None:
    async def test() -> None:
        with replicas((0, "full"), count=1) as targets, pytest.raises(RefusedError):
            await listen(ResumingClient(targets, SOON), choices())
        assert len(targets.seen) == 1

    run(test)


def test_what_a_full_target_refuses_the_next_one_answers_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = undisturbed(choices())
    monkeypatch.setattr("deployments.resume._FIRST_PAUSE_S", 1e9)

    async def test() -> None:
        with replicas((0, "full")) as targets:
            said, _ = await listen(ResumingClient(targets, SOON), choices())
        assert said == expected
        assert targets.routes == [Route("session", 0), Route("session", 1)]

    run(test)


@pytest.mark.parametrize("faults", [["full", "full"], ["dies", "full", "full"]])
def test_a_second_full_target_s_refusal_is_the_caller_s(faults: list[str]) -> None:
    async def test() -> None:
        losses = [(0, fault) for fault in faults]
        with replicas(*losses, count=3) as targets, pytest.raises(RefusedError):
            await listen(ResumingClient(targets, SOON), choices())
        assert len(targets.seen) == len(faults)

    run(test)


def test_what_is_wrong_with_a_request_is_asked_of_no_other_target() -> None:
    async def test() -> None:
        with replicas((0, "invalid")) as targets, pytest.raises(RefusedError):
            await listen(ResumingClient(targets, SOON), choices())
        assert len(targets.seen) == 1

    run(test)


@pytest.mark.parametrize("num_items", [1, 9, 16])
def test_an_answer_that_was_taken_waits_for_a_place_elsewhere(num_items: int) -> None:
    """With no token yet, with some, and with one of the choices said."""
    expected = undisturbed(choices())

    async def test() -> None:
        with replicas((num_items, "dies"), *[(0, "full")] * 3) as targets:
            said, _ = await listen(ResumingClient(targets, SOON), choices())
        assert said == expected
        assert len(targets.seen) == 5

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


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_whole_response_is_the_one_of_an_undisturbed_target(
    serving: Any, path: str, stream: bool
) -> None:
    body: dict[str, Any] = {"max_tokens": 40, "n": 2, "stream": stream, "seed": 1}
    body |= {"messages": [{"role": "user", "content": "hi"}], "logprobs": True}
    if path == "/v1/completions":
        body = {**body, "prompt": "hi", "logprobs": 2}
        del body["messages"]
    if stream:
        body["stream_options"] = {"include_usage": True}

    async def answer(faults: Iterator[int]) -> object:
        async with serving() as server:
            target = server.target
            whole = target.generate

            async def broken(requests: Any, route: Route = ANYWHERE) -> Any:
                num_left = next(faults, 10**9)
                async for emissions in whole(requests, route):
                    for emission in emissions:
                        if not num_left:
                            raise ConnectionError("the actor died")
                        num_left -= 1
                        yield [emission]

            target.generate = broken
            server.gateway.apply(IngressSettings(resume=SOON))
            found: httpx.Response = await server.post(path, **body)
            assert found.status_code == 200, found.text
            lines = found.text.splitlines() if stream else [f"data: {found.text}"]
            data = [line.removeprefix("data: ") for line in lines if line]
            bodies = [without_identity(json.loads(each)) for each in data if each != "[DONE]"]
            return sorted(bodies, key=choice_index)

    async def test() -> None:
        assert await answer(iter([3, 2, 0])) == await answer(iter([]))

    run(test)


def choice_index(body: dict[str, Any]) -> int:
    """Choices may take turns differently; each one's chunks are in order."""
    return int(body["choices"][0]["index"]) if body["choices"] else -1


def without_identity(body: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from call to call, and what speculation did."""
    kept = {key: value for key, value in body.items() if key not in ("id", "created")}
    if kept.get("usage"):
        volatile = ("speculation", "completion_tokens_details")
        kept["usage"] = {k: v for k, v in kept["usage"].items() if k not in volatile}
    return kept


def test_an_answer_that_cannot_go_on_ends_in_an_error_event(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            whole = server.target.generate

            async def broken(requests: Any, route: Route = ANYWHERE) -> Any:
                async for emissions in whole(requests, route):
                    yield emissions[:1]
                    if emissions:
                        raise ConnectionError("the actor died")

            server.target.generate = broken
            server.gateway.apply(IngressSettings(resume=Resume(max_losses=1)))
            events = await server.events("/v1/completions", prompt="hi", max_tokens=60)
            assert "error" in json.loads(events[-1])
            assert "[DONE]" not in events
            answer = await server.post("/v1/completions", prompt="hi", max_tokens=60)
            assert answer.status_code == 500

    run(test)


def test_a_target_that_refuses_to_go_on_says_why(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            whole, refusal = server.target.generate, Refusal("invalid", "hedgerow.drafters", "gone")

            async def broken(requests: Any, route: Route = ANYWHERE) -> Any:
                if route.attempt:
                    raise RefusedError(refusal)
                async for emissions in whole(requests, route):
                    yield emissions[:1]
                    if emissions:
                        raise ConnectionError("the actor died")

            server.target.generate = broken
            server.gateway.apply(IngressSettings(resume=SOON))
            answer = await server.post("/v1/completions", prompt="hi", max_tokens=60)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "hedgerow.drafters"

    run(test)


def test_a_conversation_has_one_session_and_others_have_others() -> None:
    opening = ["system: be brief", "user: hi"]
    session = session_of("a", opening)
    assert session_of("a", opening) == session
    assert session_of("b", opening) != session
    assert session_of("a", ["system: be brief", "user: ho"]) != session
    assert "brief" not in session
    assert beginning_of(range(1000)) == beginning_of(range(500))


def test_later_attempts_go_round_the_targets() -> None:
    targets = ["a", "b", "c"]
    assert [ranked(targets, attempt)[0] for attempt in range(5)] == ["a", "b", "c", "a", "b"]
    assert ranked([], 3) == []
    assert Route.read(Route("x#y", 7).session_id) == Route("x#y", 7)
    assert Route.read("a-uuid") == Route("a-uuid")
    assert ANYWHERE.session_id == ""


def test_a_silent_target_is_tried_last_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    suspicion, now_s = Suspicion(), [100.0]
    monkeypatch.setattr("deployments.route.time.monotonic", lambda: now_s[0])
    suspicion.chose("one", ["a", "b", "c"])
    suspicion.note("one")
    suspicion.note("never chosen")
    assert suspicion.order(["a", "b", "c"]) == ["b", "c", "a"]
    now_s[0] += 31.0
    assert suspicion.order(["a", "b", "c"]) == ["a", "b", "c"]
