"""Stands between targets and a host, and does to their messages what a bad network might."""

from __future__ import annotations

import heapq
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import zmq

from deployments.sockets import Context, Endpoint, Gatekeeper, Socket, connect, listen
from deployments.transport_keys import TransportKeys


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of the messages, each way; every message also takes up to `delay_s`."""

    delay_s: float = 0.0
    min_delay_s: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    garbage: float = 0.0


class FaultProxy:
    """Listens at `endpoint` with the host's keys, until it is closed."""

    def __init__(self, host: Endpoint, keys: TransportKeys, faults: Faults, seed: int = 0) -> None:
        self._context: Context = zmq.Context()
        self._keys = keys
        self._gatekeeper = Gatekeeper(self._context, keys)
        self._front, self.endpoint = listen(self._context, "127.0.0.1", keys)
        self._host, self._faults, self._rng = host, faults, random.Random(seed)
        self._backs: dict[bytes, Socket] = {}
        self._due: list[tuple[float, int, bytes, bool, bytes]] = []
        self._is_closing = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._is_closing = True
        self._thread.join()
        self._context.destroy(linger=0)

    def _run(self) -> None:
        while not self._is_closing:
            backs = {socket: client for client, socket in self._backs.items()}
            ready, _, _ = zmq.select([self._front, self._gatekeeper.socket, *backs], [], [], 0.001)
            for socket in ready:
                if socket is self._gatekeeper.socket:
                    self._gatekeeper.answer()
                elif socket is self._front:
                    client, data = socket.recv_multipart()
                    if client not in self._backs:
                        self._backs[client] = connect(self._context, self._host, self._keys)
                    self._spoil(client, True, data)
                else:
                    self._spoil(backs[socket], False, socket.recv())
            self._deliver()

    def _spoil(self, client: bytes, to_host: bool, data: bytes) -> None:
        rng, faults = self._rng, self._faults
        if rng.random() < faults.drop:
            return
        if rng.random() < faults.garbage:
            data = rng.randbytes(len(data))
        for _ in range(2 if rng.random() < faults.duplicate else 1):
            due_s = time.monotonic() + rng.uniform(faults.min_delay_s, faults.delay_s)
            heapq.heappush(self._due, (due_s, len(self._due), client, to_host, data))

    def _deliver(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, client, to_host, data = heapq.heappop(self._due)
            with suppress(zmq.Again):  # not connected yet
                if to_host:
                    self._backs[client].send(data, zmq.NOBLOCK)
                else:
                    self._front.send_multipart([client, data], zmq.NOBLOCK)
