"""The target replica and its thread, without Ray: settings, refusals, failures, freeing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cluster.config import ClusterConfig, DrafterSection, TargetSection, TargetSettings
from deployments.app import app, build_app
from deployments.engine_thread import EngineStoppedError, EngineThread
from deployments.latencies import BOUNDS_S, Histogram, Latencies, Stopwatch
from deployments.model_card import fingerprint
from deployments.refusal import Refusal
from deployments.selectors import Selectors
from deployments.target import Target
from deployments.target_drafters import TargetDrafters
from engine.config import DrafterConfig, TargetConfig
from engine.drafters.drafter import Drafter
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.errors import CapacityError
from engine.request import Emission, GenerationRequest, SpeculationOptions
from policies.cost_model import CostModel
from policies.fixed import FixedSelector
from policies.learning import LearningSelector
from policies.rule import RuleSelector
from policies.selector import Context, Decision
from policies.survival import SurvivalSelector


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 30)

    asyncio.run(bounded())


def request(name: str, max_tokens: int = 6, **options: Any) -> GenerationRequest:
    return GenerationRequest(name, (1, 2), max_tokens, **options)


def context() -> Context:
    return Context("a", "default", {"lookup": 5}, {})


def test_the_file_s_sections_have_exactly_the_engine_s_fields() -> None:
    assert list(TargetSection.model_fields) == [field.name for field in fields(TargetConfig)]
    engines = [name for name in DrafterSection.model_fields if name != "host"]
    assert engines == [field.name for field in fields(DrafterConfig)]


def test_the_application_is_built_from_args_and_from_the_repository_s_file() -> None:
    assert build_app({}) is not None
    assert app is not None


def test_each_host_is_a_deployment_with_its_resources_for_the_target_to_find() -> None:
    drafters = [{"name": name, "kind": "suffix", "host": name} for name in ("code", "math")]
    resources = {"num_gpus": 1.0, "num_cpus": 2.0, "resources": {"fast": 1.0}}
    hosts = [{"name": "code", "num_replicas": 3, **resources}, {"name": "math"}]
    application: Any = build_app({"drafters": drafters, "hosts": hosts})
    _, target, _ = application._bound_deployment.init_args
    config, router, found = target._bound_deployment.init_args
    deployments = {name: host._bound_deployment for name, host in found.items()}
    assert {d.name for d in deployments.values()} == {"Drafter-code", "Drafter-math"}
    assert deployments["code"].num_replicas == 3
    assert deployments["code"].ray_actor_options.items() >= resources.items()
    assert deployments["math"].ray_actor_options["num_gpus"] == 0
    assert deployments["math"].init_args == (config, "math", router)


def test_wrong_args_are_refused_before_anything_starts() -> None:
    with pytest.raises(ValidationError, match="modl"):
        build_app({"target": {"modl": "x"}})


def test_settings_build_the_selectors_that_they_name() -> None:
    settings = TargetSettings.model_validate(
        {
            "selector": {
                "name": "rule",
                "lookups": ["lookup"],
                "draft_length": 3,
                "otherwise": {"drafter": "small", "draft_length": 2},
            },
            "selectors": {"one": {"name": "fixed", "drafter": "lookup", "draft_length": 4}},
        }
    )
    default, named = selectors().build(settings)
    assert isinstance(default, RuleSelector)
    assert default.choose([context()]) == [Decision("lookup", 3)]
    assert isinstance(named["one"], FixedSelector)
    assert named["one"].choose([context()]) == [Decision("lookup", 4)]


def selectors() -> Selectors:
    return Selectors({"lookup": 8, "small": 3}, CostModel())


LEARNERS: list[dict[str, Any]] = [
    {"name": "ucbspec", "loss": "seconds", "scope": "tenant", "radius_scale": 0.05},
    {"name": "exp3spec", "scope": "global"},
    {"name": "hedge", "rate": 0.3},
    {"name": "normalhedge", "loss": "tokens"},
    {"name": "survival", "evaluation_share": 0.1},
]


@pytest.mark.parametrize("section", LEARNERS, ids=lambda section: str(section["name"]))
@pytest.mark.parametrize("narrow", [{}, {"drafters": ["small"]}, {"draft_lengths": [2, 50]}])
def test_every_learner_can_be_named(section: dict[str, Any], narrow: dict[str, Any]) -> None:
    settings = TargetSettings.model_validate({"selector": section | narrow})
    default, _ = selectors().build(settings)
    assert isinstance(default, LearningSelector | SurvivalSelector)
    arms = set(default.arms.keys) - {("", 0)}
    assert {name for name, _ in arms} == set(narrow.get("drafters", ["lookup", "small"]))
    lengths = {length for name, length in arms if name == "small"}
    assert lengths == ({2, 3} if "draft_lengths" in narrow else {1, 2, 3})
    assert len(default.choose([context()])) == 1


def test_what_was_learnt_outlives_other_settings() -> None:
    made = selectors()
    learner, rule = {"name": "survival"}, {"name": "rule", "lookups": ["lookup"]}
    before, named = made.build(
        TargetSettings.model_validate({"selector": learner, "selectors": {"a": learner, "b": rule}})
    )
    changed = {"name": "survival", "evaluation_share": 0.5}
    after, named_after = made.build(
        TargetSettings.model_validate(
            {"selector": learner, "selectors": {"a": changed, "b": rule}, "speculation": "on"}
        )
    )
    assert after is before
    assert named_after["b"] is named["b"]
    assert named_after["a"] is not named["a"]


def test_without_settings_survival_chooses() -> None:
    default, _ = selectors().build(TargetSettings())
    assert isinstance(default, SurvivalSelector)


def test_speculation_off_leaves_nobody_to_choose() -> None:
    section = {"name": "fixed", "drafter": "lookup", "draft_length": 4}
    settings = {"speculation": False, "selector": section, "selectors": {"one": section}}
    default, _ = selectors().build(TargetSettings.model_validate(settings))
    assert default is None


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


def test_a_round_of_several_tokens_is_that_many_equal_waits() -> None:
    latencies = Latencies()
    stopwatch = Stopwatch(latencies, 10.0)
    stopwatch.note([Emission("a", (1,), "x")], 10.5)
    stopwatch.note([Emission("a", (1, 2, 3), "x", finish_reason="stop")], 11.1)
    assert latencies.first_token.total == pytest.approx(0.5)
    assert sum(latencies.between_tokens.counts) == 3
    assert latencies.between_tokens.total == pytest.approx(0.6)
    assert latencies.whole_request.total == pytest.approx(1.1)
    assert latencies.num_finished == {"stop": 1}


def test_an_observation_on_a_bound_counts_below_it() -> None:
    histogram = Histogram()
    histogram.observe(BOUNDS_S[3])
    histogram.observe(BOUNDS_S[-1] + 1)
    assert histogram.counts[3] == 1
    assert histogram.counts[-1] == 1


def test_the_fingerprint_follows_the_model_and_the_numerics(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = fingerprint(tmp_path, "fast")
    assert fingerprint(tmp_path, "invariant") != before
    (tmp_path / "config.json").write_text("{ }")
    assert fingerprint(tmp_path, "fast") != before


def test_the_fingerprint_tells_two_trainings_of_one_shape_apart(tmp_path: Any) -> None:
    header, num_bytes = b'{"w": {}}', 4 * 2**20
    start = len(header).to_bytes(8, "little") + header

    def of(weights: bytes, folder: str = "a") -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "model.safetensors").write_bytes(start + weights)
        return fingerprint(tmp_path / folder)

    generator = np.random.default_rng(0)
    one, other = generator.bytes(num_bytes), generator.bytes(num_bytes)
    assert of(one) == of(one, "b")
    assert of(one) != of(other)
    assert of(one) != of(one[: -(2**17)] + other[-(2**17) :])
    assert of(one) != of(one[:-1] + bytes([one[-1] ^ 1]))
    assert len({of(one), of(one[:-1]), of(b""), of(b"x"), of(b"y")}) == 5


def test_what_is_no_safetensors_file_has_a_fingerprint_too(tmp_path: Any) -> None:
    found = set()
    for content in (b"", b"x", b"\xff" * 8, b"\xff" * 100):
        (tmp_path / "model.safetensors").write_bytes(content)
        found.add(fingerprint(tmp_path))
    assert len(found) == 4


def test_sums_that_mean_the_same_elsewhere_are_shared() -> None:
    made = selectors()
    sections = {str(section["name"]): section for section in LEARNERS}
    sections["other"] = {"name": "hedge", "scope": "tenant"}
    made.build(TargetSettings.model_validate({"selectors": sections}))
    first = [min(each.layout.cells(np.ones(each.layout.shape))) for each in made.shared]
    assert [name.split("-")[0] for name in first] == [
        "s::0:1:p",  # the default
        "l:exp3spec",
        "s::0:1:p",
        "l:hedge",
    ]
