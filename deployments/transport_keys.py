"""CURVE keys, derived from the cluster's secret, and who may connect with them.

Hosts have one key pair, clients another. With two secrets a host uses the first and accepts the
clients of both; a client uses the one whose host it finds.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Both in Z85, as libzmq's options take them."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Generation:
    host: KeyPair
    client: KeyPair


class TransportKeys:
    """The keys of one or two secrets, the one to use first."""

    def __init__(self, secrets: Sequence[str]) -> None:
        assert secrets, "expected at least one secret"
        self._generations = [
            _Generation(_derive(secret, b"host"), _derive(secret, b"client")) for secret in secrets
        ]

    @property
    def host(self) -> KeyPair:
        """What a host binds with; its public part is told to clients."""
        return self._generations[0].host

    def client_of(self, host_public: bytes) -> KeyPair | None:
        """What a client connects to such a host with; None if it is no host of ours."""
        for generation in self._generations:
            if hmac.compare_digest(generation.host.public, host_public):
                return generation.client
        return None

    def accepts(self, client_public: bytes) -> bool:
        """Whether this is one of our clients' public keys, as ZAP gives it: 32 raw bytes."""
        known = [z85.decode(each.client.public) for each in self._generations]
        return any(hmac.compare_digest(key, client_public) for key in known)


def _derive(secret: str, role: bytes) -> KeyPair:
    """Any 32 bytes are a CURVE secret key."""
    raw = hmac.digest(secret.encode(), b"hedgerow transport 1: " + role, "sha256")
    own = z85.encode(raw)
    return KeyPair(zmq.curve_public(own), own)
