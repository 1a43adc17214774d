"""The HTTP application on a fake engine: shapes, errors, streams, limits, disconnects."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from cluster.config import Limits
from deployments.errors import ApiError
from deployments.json_body import parse_json

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
USER = {"role": "user", "content": "hi"}
Json = dict[str, Any]


async def error_of(server: Any, path: str, status: int, **body: object) -> Json:
    answer = await server.post(path, **body)
    assert answer.status_code == status, answer.text
    error: Json = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(_awaited(test), 30))


async def _awaited(test: Callable[[], Awaitable[None]]) -> None:
    await test()


def test_chat_answers_in_openai_s_shape(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            body = (await server.post(CHAT, messages=[USER], max_tokens=8)).json()
            assert body["object"] == "chat.completion"
            assert body["id"].startswith("chatcmpl-")
            assert body["system_fingerprint"] == "fp_test"
            choice = body["choices"][0]
            assert choice["message"] == {"role": "assistant", "content": "Grüße ", "refusal": None}
            assert choice["finish_reason"] == "length"
            assert body["usage"]["total_tokens"] == 9 + 8

    run(test)


def test_usage_says_what_speculation_did(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.post(CHAT, messages=[USER], max_tokens=9, n=2)
            usage = answer.json()["usage"]
            assert usage["prompt_tokens"] == 9
            assert usage["completion_tokens"] == 18
            assert usage["prompt_tokens_details"] == {"cached_tokens": 1}
            assert usage["completion_tokens_details"] == {
                "accepted_prediction_tokens": 6,
                "rejected_prediction_tokens": 4,
            }
            assert usage["speculation"]["num_rounds"] == 6
            assert usage["speculation"]["mean_acceptance_length"] == 3.0
            assert usage["speculation"]["per_drafter"]["lookup"]["num_accepted_tokens"] == 6

    run(test)


def test_chat_stream_opens_with_the_role_and_ends_with_done(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            *events, done = await server.events(CHAT, messages=[USER], max_tokens=8)
            chunks = [json.loads(event)["choices"][0] for event in events]
            assert done == "[DONE]"
            assert chunks[0]["delta"] == {"role": "assistant", "content": ""}
            assert "".join(c["delta"].get("content", "") for c in chunks) == "Grüße "
            assert [c["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
            assert chunks[-1]["delta"] == {}
            assert chunks[-1]["finish_reason"] == "length"
            assert all("usage" not in json.loads(event) for event in events)

    run(test)


def test_usage_chunk_comes_last_when_asked_for(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            options = {"include_usage": True}
            *events, usage, _ = await server.events(
                COMPLETIONS, prompt="x", max_tokens=6, stream_options=options
            )
            assert all(json.loads(event)["usage"] is None for event in events)
            assert json.loads(usage)["choices"] == []
            assert json.loads(usage)["usage"]["completion_tokens"] == 6

    run(test)


def test_every_chunk_tells_what_it_came_to_when_asked_as_vllm_s_clients_ask(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            options = {"include_usage": True, "continuous_usage_stats": True}
            *events, _ = await server.events(
                COMPLETIONS, prompt="x", max_tokens=6, stream_options=options
            )
            used = [json.loads(event)["usage"]["completion_tokens"] for event in events]
            assert used == sorted(used)
            assert 0 < used[0] < used[-1] == 6

    run(test)


@pytest.mark.parametrize("prompt", ["ab", [65, 66], ["a", "b"], [[65], [66, 67]]])
def test_completion_takes_all_four_forms_of_prompts(serving: Any, prompt: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            body = (await server.post(COMPLETIONS, prompt=prompt, max_tokens=4)).json()
            num = 2 if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
            assert [choice["index"] for choice in body["choices"]] == list(range(num))
            assert body["object"] == "text_completion"

    run(test)


def test_choices_of_one_prompt_share_a_leader_and_differ_in_seed(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            await server.post(COMPLETIONS, prompt=["a", "b"], n=2, seed=5, max_tokens=2)
            seen = server.engine.seen
            leaders = [request.leader_id for request in seen]
            assert leaders == [None, seen[0].sequence_id, None, seen[2].sequence_id]
            seeds = [request.sampling.seed for request in seen]
            assert seeds[:2] == seeds[2:]
            assert seeds[0] != seeds[1]

    run(test)


def test_without_a_seed_each_call_draws_its_own(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            for _ in range(2):
                await server.post(COMPLETIONS, prompt="a", max_tokens=1)
            first, second = server.engine.seen
            assert first.sampling.seed != second.sampling.seed

    run(test)


def test_every_parameter_reaches_the_engine(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.post(
                CHAT,
                messages=[{"role": "developer", "content": [{"type": "text", "text": "x"}]}, USER],
                max_completion_tokens=7,
                temperature=0.5,
                top_p=0.9,
                top_k=40,
                min_p=0.05,
                presence_penalty=0.1,
                frequency_penalty=-0.1,
                repetition_penalty=1.1,
                logit_bias={"65": -100, "66": 3.5},
                min_tokens=2,
                seed=-3,
                stop="hedge",
                stop_token_ids=[3],
                ignore_eos=True,
                logprobs=True,
                top_logprobs=4,
                user="someone",
                hedgerow={"drafters": ["lookup"], "selector": "x", "max_draft_length": 3},
            )
            assert answer.status_code == 200, answer.text
            (request,) = server.engine.seen
            sampling = request.sampling
            assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 40)
            assert (sampling.min_p, sampling.presence_penalty) == (0.05, 0.1)
            assert (sampling.frequency_penalty, sampling.repetition_penalty) == (-0.1, 1.1)
            assert sampling.logit_bias == {65: -100, 66: 3.5}
            assert (sampling.min_tokens, sampling.logprobs) == (2, 4)
            assert (request.max_tokens, request.stop, request.stop_token_ids) == (
                7,
                ("hedge",),
                (3,),
            )
            assert request.ignore_eos
            assert request.speculation.drafters == ("lookup",)
            assert request.speculation.selector == "x"
            assert request.speculation.max_draft_length == 3
            ids = list(request.prompt_ids)
            assert server.gateway.text.decode(ids) == "system: x\nuser: hi\n"

    run(test)


WRONG_CHAT: list[tuple[Json, str]] = [
    ({"foo": 1}, "foo"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [USER | {"name": "bob"}]}, "messages[0].name"),
    ({"messages": [USER, {"role": "user", "content": [{"type": "image_url"}]}]}, "messages[1].*"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].*"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": 2.5}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -1}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": 1.1}, "min_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"400": 1}}, "logit_bias"),
    ({"logit_bias": {"5": "x"}}, "logit_bias[5]"),
    ({"n": 0}, "n"),
    ({"n": 33}, "n"),
    ({"stop": ""}, "stop[0]"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ["a", "x" * 1001]}, "stop[1]"),
    ({"stop": [1]}, "stop[0]"),
    ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.0}, "seed"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 600}, "max_tokens"),
    ({"max_tokens": None, "max_completion_tokens": 600}, "max_completion_tokens"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    ({"min_tokens": 10}, "min_tokens"),
    ({"ignore_eos": 1}, "ignore_eos"),
    ({"logprobs": 3}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_k": 10**400}, "top_k"),
    ({"min_tokens": -(10**400)}, "min_tokens"),
    ({"logit_bias": {"05": 1.0}}, "logit_bias"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"x": True}}, "stream_options.x"),
    ({"user": 5}, "user"),
    ({"hedgerow": {"drafter": "x"}}, "hedgerow.drafter"),
    ({"hedgerow": {"drafters": "x"}}, "hedgerow.drafters"),
    ({"hedgerow": {"max_draft_length": -1}}, "hedgerow.max_draft_length"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"store": True}, "store"),
    ({"reasoning_effort": "low"}, "reasoning_effort"),
]


@pytest.mark.parametrize(("wrong", "parameter"), WRONG_CHAT, ids=lambda value: str(value)[:60])
def test_each_wrong_parameter_is_refused_by_name(serving: Any, wrong: Json, parameter: str) -> None:
    async def test() -> None:
        async with serving() as server:
            body = {"messages": [USER], "max_tokens": 9} | wrong
            error = await error_of(server, CHAT, 400, **body)
            assert error["param"].startswith(parameter.removesuffix("*")), error
            assert error["type"] == "invalid_request_error"
            assert not server.engine.seen

    run(test)


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", [1]]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [999]}, "prompt"),
        ({"prompt": "x" * 600}, "prompt"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"messages": [USER]}, "messages"),
        ({"max_completion_tokens": 3}, "max_completion_tokens"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_completions_are_refused_by_name(serving: Any, wrong: Json, parameter: str) -> None:
    async def test() -> None:
        async with serving() as server:
            error = await error_of(server, COMPLETIONS, 400, **({"prompt": "a"} | wrong))
            assert error["param"] == parameter

    run(test)


def test_what_asks_for_nothing_is_accepted(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.post(
                CHAT,
                messages=[USER, {"role": "assistant", "content": "x", "refusal": None}, USER],
                max_tokens=None,
                tools=[],
                tool_choice="auto",
                response_format={"type": "text"},
                store=False,
                reasoning_effort=None,
                temperature=None,
            )
            assert answer.status_code == 200, answer.text

    run(test)


def test_a_prompt_too_long_is_a_context_length_error(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            error = await error_of(server, COMPLETIONS, 400, prompt="x" * 600)
            assert error["code"] == "context_length_exceeded"

    run(test)


def test_limits_of_the_configuration_bound_a_request(serving: Any) -> None:
    async def test() -> None:
        limits = Limits(max_body_bytes=1024, max_prompt_tokens=4, max_choices=2)
        async with serving(limits) as server:
            error = await error_of(server, COMPLETIONS, 413, prompt="x" * 2000)
            assert error["code"] == "request_too_large"
            assert (await error_of(server, COMPLETIONS, 400, prompt="xxxxx"))["param"] == "prompt"
            assert (await error_of(server, COMPLETIONS, 400, prompt="x", n=3))["param"] == "n"

    run(test)


@pytest.mark.parametrize(
    ("path", "body"),
    [(COMPLETIONS, {"prompt": ["a"] * 3}), (CHAT, {"messages": [USER], "n": 3})],
)
def test_too_many_choices_are_refused_before_any_text_is_tokenized(
    serving: Any, monkeypatch: pytest.MonkeyPatch, path: str, body: Json
) -> None:
    async def test() -> None:
        async with serving(Limits(max_choices=2)) as server:
            monkeypatch.setattr(server.gateway.text, "encode", None)
            assert (await error_of(server, path, 400, **body))["param"] == "n"

    run(test)


def test_an_unknown_model_is_not_found(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            error = await error_of(server, CHAT, 404, model="gpt", messages=[USER])
            assert (error["code"], error["param"]) == ("model_not_found", "model")
            answer = await server.client.get("/v1/models/gpt")
            assert answer.json()["error"]["code"] == "model_not_found"

    run(test)


def test_drafters_are_listed_with_how_they_are_on_each_replica(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            lookup = {"num_drafts": 4, "num_draft_tokens": 10, "num_accepted_tokens": 6}
            far = dict.fromkeys(lookup, 0)
            assert (await server.client.get("/v1/drafters")).json() == {
                "object": "list",
                "data": [
                    {"id": "far", "object": "drafter", "states": ["resting"] * 2, "num_failures": 8}
                    | {"reasons": []}
                    | far,
                    {"id": "lookup", "object": "drafter", "states": ["ready"] * 2}
                    | {"reasons": [], "num_failures": 2}
                    | lookup,
                ],
            }

    run(test)


def test_models_are_listed_and_found(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            (model,) = (await server.client.get("/v1/models")).json()["data"]
            assert model == (await server.client.get("/v1/models/tiny")).json()
            assert model["max_model_len"] == 512

    run(test)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", CHAT, 405), ("POST", "/health", 405)],
)
def test_wrong_routes_have_openai_s_shape(
    serving: Any, method: str, path: str, status: int
) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.client.request(method, path)
            assert answer.status_code == status
            assert answer.json()["error"]["type"] == "invalid_request_error"

    run(test)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": 1, "a": 2}',
        b"\xff",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 33 + b"]" * 33 + b"}",
        b"[" * 100_000,
        b'"' + b'\\"' * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_json(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    "body",
    [
        {"model": "x" * 90_000, "prompt": "a"},
        {"prompt": "a", "x" * 90_000: 1},
        {"prompt": "a", "hedgerow": {"x" * 90_000: 1}},
        {"prompt": "a", "logit_bias": {"x" * 90_000: 1}},
        {"prompt": "a", "logit_bias": {"1" * 5_000: 1}},
        {"prompt": "a", "top_k": 10**4_000},
        {"prompt": "a", "max_tokens": 10**4_000},
    ],
    ids=lambda body: ", ".join(body)[:40],
)
def test_an_error_is_short_however_long_the_request_s_words(serving: Any, body: Json) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.post(COMPLETIONS, **body)
            assert 400 <= answer.status_code < 500
            assert len(answer.text) < 2000
            assert "set_int_max_str_digits" not in answer.text

    run(test)


def test_an_integer_that_python_does_not_read_is_too_large() -> None:
    with pytest.raises(ApiError, match="a number is too large"):
        parse_json(b'{"a": ' + b"9" * 5000 + b"}")


def test_a_prompt_s_length_is_checked_before_its_ids(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            error = await error_of(server, COMPLETIONS, 400, prompt=[999] * 600)
            assert error["code"] == "context_length_exceeded"

    run(test)


def test_a_body_that_does_not_come_is_not_waited_for(serving: Any) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b'{"model": "tiny", '
        await asyncio.Event().wait()

    async def test() -> None:
        async with serving(Limits(request_timeout_s=0.05)) as server:
            answer = await server.client.post(COMPLETIONS, content=half())
            assert answer.status_code == 408
            assert answer.json()["error"]["code"] == "timeout"

    run(test)


def test_brackets_inside_of_strings_are_no_nesting() -> None:
    text = "[" * 99 + '\\"{'
    assert parse_json(json.dumps({"a": text}).encode()) == {"a": text}


def test_health_is_unavailable_until_the_target_answers(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with serving() as server:
            assert (await server.client.get("/health")).json() == {"status": "ok"}
            server.target.is_loaded = False
            assert (await server.client.get("/health")).status_code == 200  # a moment ago it was
            monkeypatch.setattr("deployments.gateway.CONTROL_TIMEOUT_S", 0.01)
            monkeypatch.setattr("deployments.gateway.READY_S", 0.0)
            answer = await server.client.get("/health")
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "not_ready"

    run(test)


def test_metrics_add_up_the_replicas_under_vllm_s_names(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            lines = (await server.client.get("/metrics")).text.splitlines()
            assert "hedgerow:num_requests_running 2.0" in lines
            assert "hedgerow:generation_tokens_total 22.0" in lines
            assert "hedgerow:num_requests_finished_total 4.0" in lines
            assert "hedgerow:kv_cache_usage_perc 0.5" in lines
            accepted = 'hedgerow:spec_decode_num_accepted_tokens_total{drafter="lookup"} 6.0'
            assert accepted in lines
            assert 'hedgerow:time_to_first_token_seconds_bucket{le="+Inf"} 0.0' in lines

    run(test)


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_is_said_at_once(serving: Any, stream: bool) -> None:
    async def test() -> None:
        async with serving(capacity=1) as server:
            error = await error_of(server, COMPLETIONS, 503, prompt="a", n=2, stream=stream)
            assert error["code"] == "overloaded"
            await server.target.thread.run(lambda: None)
            assert not server.engine.live

    run(test)


def test_a_failing_engine_answers_500_without_its_words(serving: Any) -> None:
    async def test() -> None:
        async with serving(fails_at_round=1) as server:
            error = await error_of(server, COMPLETIONS, 500, prompt="a")
            assert error["type"] == "server_error"
            assert "memory" not in error["message"]

    run(test)


def test_a_failing_stream_ends_with_an_error_event_and_never_with_done(serving: Any) -> None:
    async def test() -> None:
        async with serving(fails_at_round=3) as server:
            events = await server.events(COMPLETIONS, prompt="a", max_tokens=30)
            assert json.loads(events[-1])["error"]["type"] == "server_error"
            assert "[DONE]" not in events

    run(test)


def test_a_late_answer_is_stopped(serving: Any) -> None:
    async def test() -> None:
        async with serving(Limits(request_timeout_s=0.05), tokens_per_round=0) as server:
            error = await error_of(server, COMPLETIONS, 504, prompt="a")
            assert error["code"] == "timeout"
            await server.target.thread.run(lambda: None)
            assert not server.engine.live

    run(test)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_sequences(serving: Any, stream: bool) -> None:
    async def test() -> None:
        async with serving(tokens_per_round=0) as server:
            body = {"model": "tiny", "prompt": "a", "n": 2, "stream": stream}
            await hang_up(server, json.dumps(body).encode())
            await server.target.thread.run(lambda: None)
            assert len(server.engine.cancelled) == 2
            assert not server.engine.live

    run(test)


async def hang_up(server: Any, body: bytes) -> None:
    """One request whose client goes away as soon as the engine works on it."""

    messages = iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        for message in messages:
            return message
        while not server.engine.live:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        assert not message.get("body", b"").endswith(b"[DONE]\n\n")

    login = server.client.headers["Authorization"]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "POST",
        "path": COMPLETIONS,
        "raw_path": COMPLETIONS.encode(),
        "query_string": b"",
        "headers": [(b"authorization", login.encode())],
    }
    await server.app(scope, receive, send)


def test_log_probabilities_name_tokens_and_bytes(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.post(
                CHAT, messages=[USER], max_tokens=4, logprobs=True, top_logprobs=1
            )
            content = answer.json()["choices"][0]["logprobs"]["content"]
            assert [entry["bytes"] for entry in content] == [[71], [114], [195], [188]]
            assert content[2]["token"] == "bytes:\\xc3"
            assert len(content[0]["top_logprobs"]) == 1
            answer = await server.post(COMPLETIONS, prompt="a", max_tokens=5, logprobs=2)
            logprobs = answer.json()["choices"][0]["logprobs"]
            assert logprobs["text_offset"] == [0, 1, 2, 2, 3]
            assert logprobs["tokens"][0] == "G"
            assert len(logprobs["top_logprobs"][0]) == 3

    run(test)


def test_many_streams_at_once_each_get_their_own_text(serving: Any) -> None:
    async def test() -> None:
        async with serving(capacity=16) as server:
            asked = [
                server.post(COMPLETIONS, prompt="a", max_tokens=length, stop="hedge")
                for length in range(2, 10)
            ]
            answers = await asyncio.gather(*asked)
            assert [answer.status_code for answer in answers] == [200] * 8, answers[-1].text
            used = [answer.json()["usage"]["completion_tokens"] for answer in answers]
            assert used == list(range(2, 10))

    run(test)


@pytest.mark.parametrize("module", ["deployments.ingress", "deployments.http"])
def test_the_ingress_process_loads_no_torch(module: str) -> None:
    program = f"import sys, {module}; print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
