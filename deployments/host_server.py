"""A host's one thread: the socket that targets talk to, and the drafters behind it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import zmq

from deployments.host_service import HostService
from deployments.sockets import Context, Gatekeeper, listen
from deployments.thread_priority import give_way
from deployments.transport_keys import TransportKeys

_MAX_MESSAGES = 256  # read before anything is answered
_IDLE_POLL_MS = 500
_WAKE = "inproc://wake"

logger = logging.getLogger(__name__)


class HostStoppedError(Exception):
    """The host's thread has ended; nothing more comes from it."""


class HostServer:
    """Serves `service` on `node_ip` until it is closed; raises TransportError if it cannot."""

    def __init__(self, service: HostService, node_ip: str, keys: TransportKeys) -> None:
        self._service = service
        self._context: Context = zmq.Context()
        self._gatekeeper = Gatekeeper(self._context, keys)
        try:
            self._socket, self.endpoint = listen(self._context, node_ip, keys)
        except Exception:
            self._context.destroy(linger=0)
            raise
        self._woken = self._context.socket(zmq.PAIR)
        self._woken.bind(_WAKE)
        self._is_closing = False
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="host", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises HostStoppedError if nobody is served any more."""
        if not self._thread.is_alive():
            raise HostStoppedError("the host's thread has ended")

    def do(self, command: Callable[[], None]) -> None:
        """On the host's thread, between two messages: within half a second."""
        self._commands.put(command)

    def close(self) -> None:
        """Ends the thread after what it is doing; waits for it."""
        if self._context.closed:
            return
        self._is_closing = True
        with self._context.socket(zmq.PAIR) as waker:
            waker.connect(_WAKE)
            with suppress(zmq.Again):
                waker.send(b"", zmq.NOBLOCK)
            self._thread.join()
        self._context.destroy(linger=0)

    def _run(self) -> None:
        give_way()
        poller = zmq.Poller()
        for socket in (self._socket, self._gatekeeper.socket, self._woken):
            poller.register(socket, zmq.POLLIN)
        try:
            while not self._is_closing:
                while not self._commands.empty():
                    self._commands.get()()
                ready = dict(poller.poll(0 if self._service.has_work else _IDLE_POLL_MS))
                if self._gatekeeper.socket in ready:
                    self._gatekeeper.answer()
                if self._socket in ready:
                    self._receive()
                self._service.work(time.monotonic())
                self._send()
        except Exception:
            logger.exception("the host failed")
        finally:
            for socket in (self._socket, self._gatekeeper.socket, self._woken):
                socket.close()

    def _receive(self) -> None:
        with suppress(zmq.Again):
            for _ in range(_MAX_MESSAGES):
                client, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
                self._service.receive(client, b"".join(frames), time.monotonic())

    def _send(self) -> None:
        for reply in self._service.take_replies():
            with suppress(zmq.Again):  # a client that does not read
                self._socket.send_multipart(reply, zmq.NOBLOCK)
