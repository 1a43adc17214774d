"""The HTTP application on a fake engine: what is answered, in which shape."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest
from http_calls import CHAT, COMPLETIONS, USER, run


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
        async with serving(seconds_per_round=0.05) as server:
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
