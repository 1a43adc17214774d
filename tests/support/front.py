"""Servers of a test's own for a front to stand before."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

Reply = Callable[[socket.socket, bytes], None]


class FakeProxy:
    """A server that keeps the heads of requests, and lets a function answer all but the checks."""

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
            if received.startswith(b"GET /-/healthz"):
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


def without_replica(connection: socket.socket, request: bytes) -> None:
    """As Ray's proxy whose replica is killed before the first byte of an answer."""
    text = b"Internal Server Error"
    head = f"HTTP/1.1 500 Internal Server Error\r\ncontent-length: {len(text)}\r\n\r\n"
    connection.sendall(head.encode() + text)
