"""The documented front, run: what it strips, bounds, closes, asks for again, and lets by."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from front import FakeProxy, Reply, answer, hang_up, without_replica
from running_server import running_server

from benchmarks.fault_servers import free_port
from benchmarks.front import front

COMPLETIONS = "/v1/completions"


def echo(connection: socket.socket, request: bytes) -> None:
    answer(connection, b'{"ok": true}')


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[httpx.Client, FakeProxy]]:
    """A front before one server that answers everything, and one that is not there."""
    proxy = FakeProxy(echo)
    with (
        front(proxy.port, free_port()) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        yield client, proxy
    proxy.close()


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    "name",
    [
        "x-request-timeout-seconds",
        "X-Request-Disconnect-Disabled",
        "x-request-id",
        "x-session-id",
        "serve_multiplexed_model_id",
        "serve-multiplexed-model-id",
        "x-serve-router-replica",
        "x-forwarded-host",
        "forwarded",
    ],
)
def test_headers_that_steer_ray_do_not_get_through(
    plain: tuple[httpx.Client, FakeProxy], name: str
) -> None:
    client, proxy = plain
    headers = {name: "canary-value", "Authorization": "Bearer hr-x", "X-Other": "kept"}
    assert client.post(COMPLETIONS, json={}, headers=headers).status_code == 200
    head = proxy.heads[-1]
    assert b"canary-value" not in head
    assert b"authorization: bearer hr-x" in head
    assert b"x-other: kept" in head
    assert b"x-forwarded-for: 127.0.0.1" in head


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/v1/drafters", "/v1/selector", "/-/healthz", "/v1/completions/../drafters"],
)
def test_operators_routes_stay_inside(plain: tuple[httpx.Client, FakeProxy], path: str) -> None:
    client, proxy = plain
    before = len(proxy.heads)
    request = client.build_request("GET", "http://127.0.0.1/")
    request.url = client.base_url.copy_with(raw_path=path.encode())
    assert error_of(client.send(request), 403)["code"] == "not_permitted"
    assert len(proxy.heads) == before


def test_what_is_too_large_is_refused_in_openai_s_shape(
    plain: tuple[httpx.Client, FakeProxy],
) -> None:
    client, _ = plain
    assert error_of(client.post(COMPLETIONS, content=b" " * 1_100_000), 413)["code"]
    assert error_of(client.get("/v1/models", headers={"x": "a" * 40_000}), 400)["code"]
    many = [(f"x-{number}", "1") for number in range(150)]
    assert error_of(client.get("/v1/models", headers=many), 400)["code"]


@pytest.mark.parametrize(
    "data", [b"POST / HTTP/1.1\r\nbroken line\r\n\r\n", b"GET /" + b"a" * 70_000]
)
def test_what_is_no_http_is_refused_and_closed(
    plain: tuple[httpx.Client, FakeProxy], data: bytes
) -> None:
    client, proxy = plain
    before, port = len(proxy.heads), client.base_url.port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(data)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")
    assert len(proxy.heads) == before


@pytest.mark.parametrize("how", [hang_up, without_replica])
def test_a_request_that_breaks_off_before_its_answer_is_asked_of_the_other(how: Reply) -> None:
    broken, sound = FakeProxy(how), FakeProxy(echo)
    with (
        front(broken.port, sound.port) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        answers = [client.post(COMPLETIONS, json={"n": number}) for number in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 8
    assert broken.heads
    assert len(sound.heads) == 8
    broken.close()
    sound.close()


def test_without_any_proxy_it_says_when_to_try_again() -> None:
    with front(free_port(), free_port()) as port:
        answer = httpx.post(f"http://127.0.0.1:{port}{COMPLETIONS}", json={}, timeout=20)
    assert error_of(answer, 503)["type"] == "server_error"
    assert answer.headers["retry-after"] == "1"


def test_a_stream_comes_through_piece_by_piece() -> None:
    may_go_on = threading.Event()

    def stream(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert may_go_on.wait(20)
        connection.sendall(b"4\r\nlast\r\n0\r\n\r\n")

    proxy = FakeProxy(stream)
    with (
        front(proxy.port, free_port()) as port,
        httpx.stream("POST", f"http://127.0.0.1:{port}{COMPLETIONS}", json={}, timeout=20) as got,
    ):
        pieces = got.iter_raw()
        assert next(pieces) == b"first"
        may_go_on.set()
        assert b"".join(pieces) == b"last"
    proxy.close()


def test_the_application_answers_through_the_front_as_without_it(serving: Any) -> None:
    body = {"model": "tiny", "prompt": "a", "max_tokens": 9, "seed": 1}
    with running_server(serving) as running, front(running.port, free_port()) as port:
        headers = {"Authorization": running.login}
        for more in ({}, {"stream": True}, {"temperature": 5}, {"model": "other"}):
            found = [
                httpx.post(
                    f"{url}{COMPLETIONS}", json={**body, **more}, headers=headers, timeout=20
                )
                for url in (running.url, f"http://127.0.0.1:{port}")
            ]
            texts = [_without_ids(answer) for answer in found]
            assert texts[0] == texts[1]
            assert found[0].status_code == found[1].status_code
        assert error_of(httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=20), 401)


def _without_ids(answer: httpx.Response) -> str:
    """An answer's text but for what is new each time."""
    text = answer.text
    for word in ("id", "created"):
        for part in text.split(f'"{word}":')[1:]:
            text = text.replace(part.partition(",")[0], "")
    return text
