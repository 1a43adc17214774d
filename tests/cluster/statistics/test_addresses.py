"""Every form of address that operators write, on a real server that asks for it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis import RedisError
from statistics_backends import POOL, wheel_server

from cluster.statistics.client import connect
from cluster.statistics.keys import Table
from cluster.statistics.redis_store import RedisStore, pools
from cluster.statistics.store import Batch, Fold, Lifetimes, Status

SERVER = Path(shutil.which("redis-server") or wheel_server())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(folder: Path, url: str, *arguments: str) -> Iterator[None]:
    """A server on the loopback, as soon as it answers at `url`."""
    command = [str(SERVER), *arguments, "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
    deadline_s, pause = time.monotonic() + 20.0, threading.Event()
    try:
        while not answers(url):
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            pause.wait(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    with suppress(RedisError, OSError), connect(url, 5.0) as client:
        return bool(client.ping())
    return False


def assert_a_store_works(url: str, writer: str = "w") -> None:
    with connect(url, 5.0) as client:
        store = RedisStore(client, POOL)
        table = Table("t", Lifetimes().epoch(store.read({}, 0).now_us))
        assert store.merge(Batch(table, writer, 0, 1, {"x": 5})).status is Status.APPLIED
        store.fold(Fold(table, writers={writer: 1}))
        assert store.read({}, 9).tables[table].cells == {"x": 5}
        assert pools(client) == [(1, POOL)]
        store.clear(table, {})


def test_a_password_and_a_user_with_no_more_rights_than_it_takes(tmp_path: Path) -> None:
    port = free_port()
    owner = f"redis://:own%3Aer@127.0.0.1:{port}"
    with serving(tmp_path, owner, "--port", str(port), "--requirepass", "own:er"):
        assert not answers(f"redis://127.0.0.1:{port}")
        assert_a_store_works(owner)
        rights = "on >s3cret ~hedgerow:statistics:* +@read +@write +@scripting +time +ping"
        with connect(owner, 5.0) as client:
            client.execute_command("ACL", "SETUSER", "hedgerow", *rights.split())
        assert_a_store_works(f"redis://hedgerow:s3cret@127.0.0.1:{port}", "v")
        assert not answers(f"redis://hedgerow:wrong@127.0.0.1:{port}")


@pytest.mark.skipif(
    not (shutil.which("redis-server") and shutil.which("openssl")),
    reason="needs a server with TLS, which the wheel's has not, and openssl for a certificate",
)
def test_tls_with_a_certificate_that_is_checked(tmp_path: Path) -> None:
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    url = f"rediss://127.0.0.1:{port}"
    trusting = f"{url}?ssl_ca_certs={certificate}"
    tls = ["--tls-port", str(port), "--port", "0", "--tls-auth-clients", "no"]
    tls += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    with serving(tmp_path, trusting, *tls, "--tls-ca-cert-file", str(certificate)):
        assert_a_store_works(trusting)
        assert not answers(url), "nobody vouches for this certificate"


def test_a_leader_that_a_sentinel_names(tmp_path: Path) -> None:
    port, sentinel_port = free_port(), free_port()
    leader = f"redis://127.0.0.1:{port}"
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {sentinel_port}\nsentinel monitor main 127.0.0.1 {port} 1\n")
    url = f"redis+sentinel://127.0.0.1:{sentinel_port}/main"
    with (
        serving(tmp_path, leader, "--port", str(port)),
        serving(tmp_path, url, str(config), "--sentinel"),
    ):
        assert_a_store_works(url)
