"""The sockets of one target to all of its hosts: what comes to any of them ends a wait.

The engine's thread drives it; there is no event loop.
"""

from __future__ import annotations

import math
from typing import Protocol

import zmq

from deployments.host_link import HostLink
from deployments.sockets import Context, Endpoint
from deployments.transport_keys import TransportKeys


class Reader(Protocol):
    """Whoever reads links: all that has arrived, without waiting."""

    def read(self) -> object: ...


class Wire:
    def __init__(self, keys: TransportKeys) -> None:
        self._keys = keys
        self._context: Context = zmq.Context()
        self._poller = zmq.Poller()
        self._readers: list[Reader] = []

    def add(self, reader: Reader) -> None:
        self._readers.append(reader)

    def remove(self, reader: Reader) -> None:
        self._readers.remove(reader)

    def connect(self, endpoint: Endpoint) -> HostLink:
        """Raises TransportError for a host with a stranger's key."""
        link = HostLink(self._context, endpoint, self._keys)
        self._poller.register(link.socket, zmq.POLLIN)
        return link

    def disconnect(self, link: HostLink) -> None:
        self._poller.unregister(link.socket)
        link.close()

    def wait(self, timeout_s: float) -> None:
        """Until something has come for anyone, all of which is read then, or the time is over."""
        if self._poller.poll(math.ceil(max(timeout_s, 0.0) * 1e3)):
            for reader in self._readers:
                reader.read()

    def close(self) -> None:
        """After all links."""
        self._context.destroy(linger=0)
