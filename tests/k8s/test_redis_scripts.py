"""The script that starts a Redis in its pod, run as the pod runs it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from manifests import K8S
from redis import AuthenticationError, Redis, RedisError

from cluster.embedded_redis import find_server

SCRIPT = K8S / "base" / "start-redis.sh"


def environment(folder: Path, port: int, password: str) -> dict[str, str]:
    return {
        "PATH": f"{find_server().parent}:{os.environ['PATH']}",
        "PASSWORD": password,
        "MAXMEMORY": "64mb",
        "BIND": "127.0.0.1",
        "PORT": str(port),
        "DATA": str(folder),
    }


@contextmanager
def running(folder: Path) -> Iterator[Redis]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    given = environment(folder, port, "a-word")
    process = subprocess.Popen(["sh", str(SCRIPT)], env=given, stdout=subprocess.DEVNULL)
    client = Redis("127.0.0.1", port, password="a-word", decode_responses=True)
    deadline_s = time.monotonic() + 20
    try:
        while True:
            with suppress(RedisError):
                client.ping()
                break
            assert time.monotonic() < deadline_s, "it does not start"
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait()


def test_it_keeps_what_it_has_and_never_throws_any_away(tmp_path: Path) -> None:
    with running(tmp_path) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 2**20)}
        client.set("a", "1")
        port = client.connection_pool.connection_kwargs["port"]
        with Redis("127.0.0.1", port) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
    with running(tmp_path) as client:
        assert client.get("a") == "1"


def test_its_password_is_for_it_alone(tmp_path: Path) -> None:
    with running(tmp_path):
        assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0


def test_a_placeholder_is_no_password(tmp_path: Path) -> None:
    given = environment(tmp_path, 1, "replace-me")
    done = subprocess.run(["sh", str(SCRIPT)], env=given, capture_output=True, text=True)
    assert done.returncode == 1
    assert "still has its placeholder" in done.stderr
