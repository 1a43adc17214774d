"""The client: every form of URL, and a server that is slow, dead or silent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from redis import Redis, RedisError
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection
from statistics_backends import LONG, POOL

from cluster.statistics.client import UrlError, connect, masked
from cluster.statistics.redis_store import RedisStore
from cluster.statistics.store import StoreError

TIMEOUT_S = 0.05


def options(client: Redis) -> dict[str, object]:
    with closing(client):
        return dict(client.connection_pool.connection_kwargs)


def test_user_password_database_and_tls() -> None:
    found = options(connect("rediss://alice:p%40ss@example.org:6380/2?ssl_cert_reqs=none"))
    assert found["username"] == "alice"
    assert found["password"] == "p@ss"
    assert (found["host"], found["port"], found["db"]) == ("example.org", 6380, 2)
    client = connect("rediss://example.org")
    assert client.connection_pool.connection_class is SSLConnection
    client.close()
    client = connect("unix://:secret@/run/redis.sock?db=1")
    assert client.connection_pool.connection_class is UnixDomainSocketConnection
    assert options(client)["password"] == "secret"


def test_nothing_is_repeated_and_every_wait_is_short_unless_the_url_says_else() -> None:
    found = options(connect("redis://example.org", TIMEOUT_S))
    assert found["socket_timeout"] == found["socket_connect_timeout"] == TIMEOUT_S
    assert found["retry"].get_retries() == 0  # type: ignore[attr-defined]
    found = options(connect("redis://example.org?socket_timeout=2&decode_responses=0", TIMEOUT_S))
    assert found["socket_timeout"] == 2
    assert found["decode_responses"] is True


def test_sentinels() -> None:
    url = (
        "rediss+sentinel://alice:p%40ss@one:1,two,[::1]:3/main/5"
        "?sentinel_password=watch&ssl_cert_reqs=none"
    )
    client = connect(url)
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.connection_class is SentinelManagedSSLConnection
    assert pool.service_name == "main"
    assert pool.connection_kwargs["username"] == "alice"
    assert pool.connection_kwargs["password"] == "p@ss"
    assert pool.connection_kwargs["db"] == 5
    watchers = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert [(w["host"], w["port"]) for w in watchers] == [("one", 1), ("two", 26379), ("::1", 3)]
    assert {w["password"] for w in watchers} == {"watch"}
    assert {w.get("username") for w in watchers} == {None}
    client.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://x:secret@y", r"'http' is no scheme; one of redis, rediss, unix"),
        ("redis://x:secret@y:port", r"redis://x:\*\*\*@y:port: .*[Pp]ort"),
        ("redis://x:secret@y/zero", r"'zero' is no database"),
        ("redis://x:secret@y?sock_timeout=1", "sock_timeout"),
        ("redis://x:secret@y?db=one", "Invalid value for 'db'"),
        ("redis+sentinel://x:secret@one:1", "the name of the service is missing"),
        ("redis+sentinel://x:secret@one:1/main/x", "'x' is no database"),
        ("redis+sentinel://x:secret@one:1,:2/main", "':2' is no address"),
        ("redis+sentinel://x:secret@one:1/main?sock_timeout=1", "sock_timeout"),
    ],
)
def test_a_url_that_cannot_be_used_is_named_without_its_password(url: str, expected: str) -> None:
    with pytest.raises(UrlError, match=expected) as caught:
        connect(url)
    assert "secret" not in str(caught.value)


def test_passwords_are_masked() -> None:
    assert masked("redis://alice:x@y:1/0?password=x") == "redis://alice:***@y:1/0"
    assert masked("redis://y:1") == "redis://y:1"
    assert masked("unix:///run/a.sock?password=x") == "unix:///run/a.sock"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


def test_a_silent_server_costs_one_timeout(black_hole: str) -> None:
    with closing(connect(black_hole, TIMEOUT_S)) as client:
        start_s = time.monotonic()
        with pytest.raises(StoreError, match="Timeout"):
            RedisStore(client, POOL, LONG).read({}, 9)
        assert TIMEOUT_S <= time.monotonic() - start_s < 10 * TIMEOUT_S


def test_an_answer_that_comes_too_late_is_nobody_s() -> None:
    """After a timeout the connection is closed: the next call does not read the last's answer."""
    is_late = threading.Event()

    def serve(listener: socket.socket) -> None:
        for number in (1, 2):
            connection, _ = listener.accept()
            with connection:
                while b"INCR" not in (data := connection.recv(4096)):
                    connection.sendall(b"+OK\r\n" * data.count(b"SETINFO"))
                if number == 1:
                    is_late.wait(5.0)
                with suppress(OSError):
                    connection.sendall(b":%d\r\n" % number)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=[listener])
        server.start()
        with closing(connect(f"redis://127.0.0.1:{listener.getsockname()[1]}", 0.2)) as client:
            with pytest.raises(RedisError):
                client.incr("x")
            is_late.set()
            assert client.incr("x") == 2
        server.join()
