"""The two ends of the data plane: a host's socket, which only our clients reach, and a client's."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import zmq

from deployments.messages import MAX_MESSAGE_BYTES
from deployments.transport_keys import TransportKeys

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

_DOMAIN = "hedgerow"
_EVERYWHERE = ("", "*", "0.0.0.0", "::", "[::]")
_HEARTBEAT_MS = 2000


class TransportError(Exception):
    """The data plane cannot be set up here."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a host replica listens, and the public key that it proves to have (Z85)."""

    address: str
    public_key: bytes


class Gatekeeper:
    """Answers libzmq, for every connection, whether its client is ours (ZeroMQ RFC 27)."""

    def __init__(self, context: Context, keys: TransportKeys) -> None:
        self._keys = keys
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind("inproc://zeromq.zap.01")

    def answer(self) -> None:
        """One question that has arrived."""
        _, request, _, _, _, mechanism, *credentials = self.socket.recv_multipart()
        is_ours = (
            mechanism == b"CURVE" and len(credentials) == 1 and self._keys.accepts(credentials[0])
        )
        status = [b"200", b"OK"] if is_ours else [b"400", b"no key of this cluster"]
        self.socket.send_multipart([b"1.0", request, *status, b"", b""])


def listen(context: Context, node_ip: str, keys: TransportKeys) -> tuple[Socket, Endpoint]:
    """A host's socket on a free port of `node_ip`; a `Gatekeeper` must be in the context already.

    Raises TransportError for an address that stands for all of the machine's.
    """
    if node_ip.strip() in _EVERYWHERE:
        raise TransportError(f"{node_ip!r}: a host listens on its node's own address only")
    socket = context.socket(zmq.ROUTER)
    _limit(socket, is_ipv6=":" in node_ip)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a client that comes back is the same one
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.host.secret)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.host.public)
    socket.setsockopt_string(zmq.ZAP_DOMAIN, _DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without an answer nobody comes in
    try:
        socket.bind(f"tcp://[{node_ip}]:0" if ":" in node_ip else f"tcp://{node_ip}:0")
    except zmq.ZMQError as error:
        socket.close()
        raise TransportError(f"{node_ip}: cannot be listened on: {error}") from error
    return socket, Endpoint(socket.getsockopt_string(zmq.LAST_ENDPOINT), keys.host.public)


def connect(context: Context, endpoint: Endpoint, keys: TransportKeys) -> Socket:
    """A client's socket; it reconnects by itself. Raises TransportError for a stranger's key."""
    own = keys.client_of(endpoint.public_key)
    if own is None:
        raise TransportError(f"{endpoint.address}: the host's key is of another transport secret")
    socket = context.socket(zmq.DEALER)
    _limit(socket, is_ipv6="[" in endpoint.address)
    socket.setsockopt(zmq.ROUTING_ID, b"t" + secrets.token_bytes(15))
    socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a host that is not there
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.setsockopt(zmq.CURVE_SERVERKEY, endpoint.public_key)
    socket.setsockopt(zmq.CURVE_SECRETKEY, own.secret)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, own.public)
    socket.connect(endpoint.address)
    return socket


def _limit(socket: Socket, is_ipv6: bool) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IPV6, int(is_ipv6))
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * _HEARTBEAT_MS)
