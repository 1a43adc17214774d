"""A TCP proxy on the loopback that can be slow, silent, or lead elsewhere, while it runs."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Literal

ONE_WAY_S = 0.1  # of a slow proxy: 200 ms there and back
Mode = Literal["pass", "slow", "silent"]


class FaultProxy:
    """Connects whoever comes to `target`, a port; both may change at any time.

    What a silent proxy takes it delivers when it is silent no more, so late that nobody waits.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.mode: Mode = "pass"
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as to:
            back = threading.Thread(target=self._pump, args=[to, client], daemon=True)
            back.start()
            self._pump(client, to)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.mode == "slow":
                    time.sleep(ONE_WAY_S)
                while self.mode == "silent":
                    time.sleep(0.05)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
