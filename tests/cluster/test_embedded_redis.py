"""The private server: one owner, guests, data kept, and an end with its owner however that ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from redis import RedisError
from statistics_backends import NAMES, wheel_server

from cluster.embedded_redis import (
    EmbeddedRedis,
    EmbeddedRedisError,
    find_server,
    redis_url,
    state_folder,
)
from cluster.statistics.client import UrlError, connect

BINARIES = [wheel_server(), *([find_server()] if "path" in NAMES else [])]
OWNER = """
import sys, time
from pathlib import Path
from cluster.embedded_redis import EmbeddedRedis
with EmbeddedRedis(Path(sys.argv[1]), Path(sys.argv[2])) as server:
    print(server.url, flush=True)
    time.sleep(60)
"""


def answers(url: str) -> bool:
    try:
        with connect(url, 1.0) as client:
            return bool(client.ping())
    except (RedisError, OSError):
        return False


@pytest.mark.parametrize("binary", BINARIES, ids=lambda path: path.name)
def test_data_is_kept_between_runs_and_the_server_ends(tmp_path: Path, binary: Path) -> None:
    for number in (1, 2):
        with EmbeddedRedis(tmp_path, binary) as server:
            with connect(server.url, 5.0) as client:
                assert client.incr("runs") == number
            assert server.is_owner
        assert not answers(server.url)


def test_it_can_be_reached_by_its_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    with EmbeddedRedis(folder) as server, connect(server.url, 5.0) as client:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "redis.sock").stat().st_mode) == 0o700
        assert client.config_get("port") == {"port": "0"}


def test_a_second_process_is_a_guest(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as owner:
        with EmbeddedRedis(tmp_path) as guest:
            assert not guest.is_owner
            assert guest.url == owner.url
        assert answers(owner.url)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_it_ends_when_its_owner_dies_and_can_be_started_again(tmp_path: Path, name: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), str(wheel_server())],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        with connect(url, 5.0) as client:
            client.set("x", "1")
        owner.send_signal(signal.Signals[name])
    with EmbeddedRedis(tmp_path, wheel_server()) as server, connect(server.url, 5.0) as client:
        assert server.is_owner
        assert client.get("x") == "1"
    assert not answers(url)


def test_a_server_that_its_supervisor_left_behind_is_replaced(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        with connect(server.url, 5.0) as client:
            first = int(str(client.info("server")["process_id"]))
        supervisor = psutil.Process(first).ppid()
        os.kill(supervisor, signal.SIGKILL)
        assert answers(server.url)
    with EmbeddedRedis(tmp_path) as server, connect(server.url, 5.0) as client:
        assert client.info("server")["process_id"] != first


def test_data_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    for _ in range(2):
        data = tmp_path / "data" / "appendonlydir"
        data.mkdir(parents=True, exist_ok=True)
        (data / "appendonly.aof.manifest").write_text("what is this\n")
        with EmbeddedRedis(tmp_path, wheel_server()) as server:
            assert answers(server.url)
    assert {path.name for path in tmp_path.glob("data*")} == {
        "data",
        "data.unreadable-1",
        "data.unreadable-2",
    }


def test_a_long_folder_name_has_its_socket_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    with EmbeddedRedis(folder) as server, EmbeddedRedis(folder) as guest:
        assert answers(guest.url)
        socket_folder = Path(server.url.removeprefix("unix://")).parent
        assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700
    socket_folder.rmdir()


def test_what_is_no_server_is_an_error_that_quotes_it(tmp_path: Path) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text("#!/bin/sh\necho it is broken\nexit 3\n")
    binary.chmod(0o755)
    with pytest.raises(EmbeddedRedisError, match="it is broken"), EmbeddedRedis(tmp_path, binary):
        pass


def test_redis_url_is_used_if_it_is_set(tmp_path: Path) -> None:
    with redis_url(tmp_path, {"REDIS_URL": "redis://example.org"}) as url:
        assert url == "redis://example.org"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UrlError), redis_url(tmp_path, {"REDIS_URL": "nonsense"}):
        pass
    with redis_url(tmp_path, {}) as url:
        assert answers(url)


def test_the_state_folder_can_be_set() -> None:
    assert state_folder({"HEDGEROW_STATE": "/a/b"}) == Path("/a/b")
    assert state_folder({"XDG_STATE_HOME": "/a"}) == Path("/a/hedgerow")
    assert state_folder({}) == Path.home() / ".local/state/hedgerow"


def test_a_path_without_servers_leaves_the_wheel_s() -> None:
    assert find_server(path="").name == "valkey-server"
