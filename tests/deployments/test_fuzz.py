"""What anybody may send: cases made from the OpenAPI document, and requests with broken bytes.

HEDGEROW_CASES says how many of the former (2,000), HEDGEROW_MUTANTS of the latter (5,000).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from running_server import RunningServer, running_server
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode

from deployments.model_card import ModelCard
from deployments.openapi import RANGES, openapi_document
from engine.errors import InvalidRequestError
from engine.request import SamplingParams

NUM_CASES = int(os.environ.get("HEDGEROW_CASES", "2000"))
NUM_MUTANTS = int(os.environ.get("HEDGEROW_MUTANTS", "5000"))
NUM_GETS = 50  # of each operation that has little to vary
NUM_CHANGES = max(50, NUM_CASES // 20)  # of each that changes drafters, in each mode
NUM_CLIENTS = 16
PATIENCE_S = 0.25
ANSWER_S = 10.0
GENERATION = ("/v1/chat/completions", "/v1/completions")
CARD = ModelCard("tiny", 257, 512, "fp_test", 1700000000)
NO_HTTP = b"Invalid HTTP request received."


@pytest.fixture
def server(serving: Any) -> Iterator[RunningServer]:
    with running_server(serving, capacity=NUM_CLIENTS * 64) as running:
        yield running


def check_error(status: int, body: bytes) -> None:
    """In OpenAI's shape, and none of ours is the server's fault."""
    assert status < 500, (status, body)
    if status >= 400:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}


def test_every_case_of_the_document_is_answered_as_it_says(server: RunningServer) -> None:
    schema: Any = schemathesis.openapi.from_dict(openapi_document(CARD))
    num_seen: Counter[tuple[str, int]] = Counter()
    with httpx.Client(base_url=server.url, headers={"Authorization": server.login}) as client:
        rng = random.Random(1)

        def ask(case: Any) -> None:
            if case.operation.path == "/v1/drafters/{name}" and rng.random() < 0.5:
                case.path_parameters["name"] = rng.choice(drafters(server))
            sent = case.as_transport_kwargs(base_url=server.url)
            answer = client.request(
                sent["method"],
                sent["url"],
                params=sent.get("params"),
                headers={**sent["headers"], "Authorization": server.login},
                content=sent.get("data"),
                json=sent.get("json"),
            )
            num_seen[case.operation.label, answer.status_code] += 1
            if answer.status_code != 504 or b'"timeout_s"' not in answer.request.content:
                check_error(answer.status_code, answer.content)
            kind = answer.headers.get("content-type", "").partition(";")[0]
            if kind == "application/json":
                case.operation.validate_response(Response.from_httpx(answer, verify=False))
            elif case.operation.path == "/metrics":
                assert kind == "text/plain"
                assert answer.text.startswith("# HELP hedgerow:")
            else:
                assert kind == "text/event-stream"
                assert answer.text.endswith("data: [DONE]\n\n"), answer.text[-300:]

        for found in schema.get_all_operations():
            operation: Any = found.ok()
            is_get = operation.method == "get"
            is_answer = operation.path in GENERATION
            for mode in GenerationMode:
                if is_get and mode is GenerationMode.NEGATIVE:
                    continue
                num = NUM_GETS if is_get else NUM_CASES // 4 if is_answer else NUM_CHANGES
                run_cases(operation, mode, num, ask)
    assert sum(num_seen.values()) >= NUM_CASES, num_seen
    for path in GENERATION:
        assert num_seen[f"POST {path}", 200] >= NUM_CASES // 100, num_seen
        assert num_seen[f"POST {path}", 400] >= NUM_CASES // 100, num_seen
    for change in ("POST /v1/drafters", "PATCH /v1/drafters/{name}", "DELETE /v1/drafters/{name}"):
        assert num_seen[change, 202], num_seen
    for path in ("/v1/drafters", "/v1/selector", "/metrics"):
        assert num_seen[f"GET {path}", 200] == NUM_GETS, num_seen


def drafters(server: RunningServer) -> list[str]:
    """Those that there are now, and one that is not."""
    target = server.server.target
    known = [each.name for each in target.changes.apply(target.config).drafters]
    return [*known, "nobody"]


def test_every_route_is_in_the_document(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            there = {
                (route.path.replace(":path", ""), method)
                for route in server.app.routes
                for method in route.methods - {"HEAD"}
            }
            documented = {
                (path, method.upper())
                for path, operations in openapi_document(CARD)["paths"].items()
                for method in operations.keys() - {"parameters"}
            }
            assert documented == there - {("/openapi.json", "GET")}

    asyncio.run(asyncio.wait_for(test(), 30))


def run_cases(operation: Any, mode: Any, num: int, ask: Any) -> None:
    @settings(
        max_examples=num, deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        ask(case)

    run()


def test_the_document_s_ranges_are_the_engine_s() -> None:
    for name, (low, high) in RANGES.items():
        is_whole = isinstance(getattr(SamplingParams(), name), int) or name == "logprobs"
        step = 1 if is_whole else 0.001
        for value in (low, high):
            sampled(name, value)
        for value in (low - step, high + step):
            with pytest.raises(InvalidRequestError, match=name):
                sampled(name, value)


def sampled(name: str, value: float) -> SamplingParams:
    given: dict[str, Any] = {name: value}
    return SamplingParams(**given)


def valid_bodies() -> list[dict[str, Any]]:
    user = {"role": "user", "content": "hi 😀"}
    return [
        {"messages": [user], "max_tokens": 5, "temperature": 0.5, "seed": 1},
        {"messages": [user], "stream": True, "stream_options": {"include_usage": True}},
        {"prompt": "abc", "max_tokens": 3, "logit_bias": {"65": 1.5}, "stop": ["x", "y"]},
        {"prompt": [[65, 66], [67]], "n": 2, "logprobs": 2, "stream": True, "min_tokens": 1},
        {"prompt": "a", "hedgerow": {"drafters": ["lookup"], "max_draft_length": 2}},
    ]


def request(body: dict[str, Any], login: str) -> tuple[bytes, bytes]:
    """The head without Content-Length, and the body."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: {login}",
        "Content-Type: application/json",
        "Connection: close",
    ]
    return "\r\n".join(lines).encode(), json.dumps({"model": "tiny", **body}).encode()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four changes of a byte, a part or a token."""
    words = [
        b"null",
        b"-1",
        b"1e999",
        b"NaN",
        b"{",
        b"]",
        b'"',
        b"\\ud800",
        b"\x00",
        b"\xff",
        b"\r\n",
    ]
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + 40)
        part = data[at:end]
        pieces = [b"", bytes([rng.randrange(256)]), part * rng.randint(2, 50), part[::-1]]
        piece = rng.choice([*pieces, rng.choice(words)])
        data = data[:at] + piece + data[end if rng.random() < 0.7 else at :]
    return data


def mutant(number: int, login: str) -> bytes:
    """Mostly the body is changed, its length being right; else the head, or all of it."""
    rng = random.Random(number)
    head, body = request(rng.choice(valid_bodies()), login)
    where = rng.random()
    if where < 0.7:
        body = mutated(body, rng)
    length = len(body) if where < 0.9 else rng.choice([0, len(body) // 2, len(body) + 9, -1])
    whole = head + f"\r\nContent-Length: {length}\r\n\r\n".encode() + body
    if where < 0.7:
        return whole
    at = len(head) if where < 0.85 else len(whole)
    return mutated(whole[:at], rng) + whole[at:]


def answer_to(data: bytes, port: int) -> bytes:
    """All that comes until the server closes. Raises TimeoutError if it does not.

    When nothing comes for a while this end is closed, on which a server gives up: what is
    incomplete would be waited for.
    """
    received, is_closed = b"", False
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        try:
            connection.sendall(data)
            while True:
                try:
                    part = connection.recv(65536)
                except TimeoutError:
                    if is_closed:
                        raise
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(ANSWER_S)
                    is_closed = True
                    continue
                if not part:
                    return received
                received += part
        except (BrokenPipeError, ConnectionResetError):
            return received  # it was refused before all was sent


def check_answer(received: bytes) -> int:
    """The status, 0 for none: what was incomplete has no answer."""
    if not received:
        return 0
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if body.startswith(NO_HTTP):
        assert status == 400
    elif b"transfer-encoding: chunked" not in head.lower():
        check_error(status, body.partition(b"HTTP/1.1 ")[0])
    assert status < 500, received[:500]
    return status


def test_requests_with_broken_bytes_are_answered_or_closed_at_once(server: RunningServer) -> None:
    login = server.login

    def ask(number: int) -> tuple[int, float]:
        start_s = time.monotonic()
        status = check_answer(answer_to(mutant(number, login), server.port))
        return status, time.monotonic() - start_s

    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        found = list(clients.map(ask, range(NUM_MUTANTS)))
    num_seen = Counter(status for status, _ in found)
    assert {200, 400, 401, 404} <= set(num_seen), num_seen
    assert num_seen[0] < NUM_MUTANTS / 4, num_seen
    assert max(seconds for _, seconds in found) < ANSWER_S
    with httpx.Client(base_url=server.url, headers={"Authorization": login}) as client:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 3}
        assert client.post("/v1/completions", json=body).status_code == 200
    deadline_s = time.monotonic() + 10
    while server.server.engine.live:
        assert time.monotonic() < deadline_s, "work is left"
        time.sleep(0.01)
