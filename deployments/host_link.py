"""A target's connection to one host replica: what it said, and what it still owes.

A host that missed a deadline is asked nothing until it has answered something: that costs one
deadline, whatever is wrong with it. Not thread-safe.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator

import zmq

from deployments.messages import (
    Hello,
    MessageError,
    NeedFrom,
    Refused,
    ToHost,
    ToTarget,
    decode_at_target,
    encode,
)
from deployments.sockets import Context, Endpoint, connect
from deployments.transport_keys import TransportKeys

AWAY_AFTER_S = 1.0  # in debt, and its sequences move to other replicas
_HELLO_EVERY_S = 0.25

logger = logging.getLogger(__name__)


class HostLink:
    """Raises TransportError for a host with a stranger's key."""

    def __init__(self, context: Context, endpoint: Endpoint, keys: TransportKeys) -> None:
        self.endpoint = endpoint
        self.socket = connect(context, endpoint, keys)
        self.num_bytes = 0  # of all messages, both ways
        self._owed: int | None = 0  # the round that is to be answered; Hello's, at first
        self._owed_since_s = 0.0
        self._next_hello_s = 0.0
        self._refusal: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it may be asked."""
        return self._owed is None and self._refusal is None

    def is_away(self, now_s: float) -> bool:
        """Whether it has been silent for too long to wait for."""
        is_silent = self._owed is not None and now_s - self._owed_since_s >= AWAY_AFTER_S
        return is_silent or self._refusal is not None or self.socket.closed

    def weight(self, sequence_id: str) -> bytes:
        """The replica with the largest gets the sequence (rendezvous hashing)."""
        return hashlib.blake2b(f"{self.endpoint.address} {sequence_id}".encode()).digest()

    def owe(self, round_number: int, now_s: float) -> None:
        """It has missed the deadline of this round."""
        self._owed, self._owed_since_s = round_number, now_s
        self._next_hello_s = now_s + _HELLO_EVERY_S

    def greet(self, next_round: Callable[[], int], now_s: float) -> None:
        """Asks it now and then to say something, while it owes that."""
        if self._owed is None or now_s < self._next_hello_s:
            return
        if self.send(Hello(next_round())):
            self._next_hello_s = now_s + _HELLO_EVERY_S

    def send(self, message: ToHost) -> bool:
        """Never waits; False if the message could not even be queued."""
        data = encode(message)
        try:
            self.socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.num_bytes += len(data)
        return True

    def receive(self) -> Iterator[ToTarget]:
        """What has arrived. Any answer to what it owes, or to anything later, settles the debt."""
        while True:
            try:
                data = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.num_bytes += len(data)
            try:
                message = decode_at_target(data)
            except MessageError:
                continue
            self._note(message)
            yield message

    def close(self) -> None:
        self.socket.close()

    def _note(self, message: ToTarget) -> None:
        if isinstance(message, Refused):
            if self._refusal is None:
                logger.error("host %s refuses: %s", self.endpoint.address, message.reason)
            self._refusal = message.reason
        elif not isinstance(message, NeedFrom) and self._owed is not None:
            self._owed = None if message.round >= self._owed else self._owed
