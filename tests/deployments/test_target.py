"""The target replica on a fake engine, without Ray: settings, refusals, failures, freeing."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from fake_serving import request
from http_calls import run

from cluster.config import ClusterConfig, DrafterSection
from cluster.settings import TargetSettings
from deployments.engine_thread import EngineStoppedError, EngineThread
from deployments.latencies import Latencies
from deployments.refusal import Refusal
from deployments.target import Target
from deployments.target_drafters import TargetDrafters
from engine.drafters.drafter import Drafter
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.request import Emission, GenerationRequest, SpeculationOptions


def made(section: DrafterSection) -> Drafter:
    return PromptLookupDrafter(section.name, section.max_draft_length)


class Nowhere:
    def drafter(self, section: DrafterSection) -> Drafter:
        raise AssertionError("there is no host")

    def note_of(self, section: DrafterSection) -> None:
        raise AssertionError("there is no host")


class FakeTarget(Target):
    """Target on the fake engine, past its loading."""

    def __init__(self, engine: Any) -> None:
        drafters = [{"name": "lookup", "kind": "prompt_lookup"}]
        self._config = ClusterConfig.model_validate({"drafters": drafters})
        self._drafters = TargetDrafters(self._config, Nowhere(), made, lambda drafters: None)
        self._engine = engine
        self._settings = TargetSettings()
        self._latencies = Latencies()
        self._thread = EngineThread(engine)

    async def items(self, *requests: GenerationRequest) -> list[list[Emission] | Refusal]:
        return [item async for item in self.generate(requests)]


def test_all_rounds_of_all_requests_arrive_in_order(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            target = FakeTarget(server.engine)
            items = await target.items(request("a", 9), request("b", 5))
            emissions = [e for item in items if isinstance(item, list) for e in item]
            assert sum(len(e.token_ids) for e in emissions if e.sequence_id == "a") == 9
            assert [e.finish_reason for e in emissions if e.sequence_id == "b"] == [None, "length"]

    run(test)


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        (SpeculationOptions(drafters=("nobody",)), "hedgerow.drafters"),
        (SpeculationOptions(selector="nobody"), "hedgerow.selector"),
    ],
)
def test_unknown_names_are_refused_as_data(
    serving: Any, options: SpeculationOptions, parameter: str
) -> None:
    async def test() -> None:
        async with serving() as server:
            target = FakeTarget(server.engine)
            (item,) = await target.items(request("a", speculation=options))
            assert isinstance(item, Refusal)
            assert (item.kind, item.parameter) == ("invalid", parameter)
            assert not server.engine.seen

    run(test)


def test_a_full_queue_takes_none_of_the_call_s_requests(serving: Any) -> None:
    async def test() -> None:
        async with serving(capacity=1) as server:
            target = FakeTarget(server.engine)
            (item,) = await target.items(request("a"), request("b"))
            assert isinstance(item, Refusal)
            assert item.kind == "full"
            assert server.engine.cancelled == ["a"]

    run(test)


def test_a_full_queue_refuses_at_once_while_a_round_is_running(serving: Any) -> None:
    async def test() -> None:
        async with serving(capacity=2) as server:
            target, round_ends = FakeTarget(server.engine), threading.Event()

            def long_round() -> None:
                round_ends.wait()

            target._thread._commands.put(long_round)
            coming = [asyncio.ensure_future(target.items(request(name))) for name in "ab"]
            await asyncio.sleep(0)
            (item,) = await target.items(request("c"))
            assert isinstance(item, Refusal)
            assert item.kind == "full"
            assert not server.engine.seen
            round_ends.set()
            assert all(await asyncio.gather(*coming))
            assert len(await target.items(request("c"))) > 0

    run(test)


def test_closing_a_stream_frees_its_sequences_within_one_round(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            target = FakeTarget(server.engine)
            rounds = target.generate([request("a", 10**6), request("b", 10**6)])
            await anext(rounds)
            await rounds.aclose()
            num_rounds = server.engine.num_rounds
            await target._thread.run(lambda: None)
            assert sorted(server.engine.cancelled) == ["a", "b"]
            assert server.engine.num_rounds <= num_rounds + 1

    run(test)


def test_a_failed_engine_fails_its_streams_health_and_later_calls(serving: Any) -> None:
    async def test() -> None:
        async with serving(fails_at_round=2) as server:
            target = FakeTarget(server.engine)
            with pytest.raises(EngineStoppedError, match="RuntimeError"):
                await target.items(request("a", 100))
            for call in (target.check_health, target.describe):
                with pytest.raises(EngineStoppedError):
                    await call()
            with pytest.raises(EngineStoppedError):
                await target.items(request("b"))

    run(test)


@pytest.mark.parametrize(
    "settings",
    [
        {"selector": {"name": "rule", "lookups": ["nobody"]}},
        {"selector": {"name": "unheard of"}},
        {"speculation": "perhaps"},
        {"disabled": ["nobody"]},
    ],
)
def test_wrong_settings_change_nothing(serving: Any, settings: dict[str, Any]) -> None:
    async def test() -> None:
        async with serving() as server:
            target = FakeTarget(server.engine)
            before = target._settings
            with pytest.raises(ValueError, match=r"nobody|unheard|'on' or 'off'"):
                await target.reconfigure(settings)
            assert target._settings == before

    run(test)
