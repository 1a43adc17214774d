"""The data plane's door: who gets in, where a host listens, and where the secret comes from."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hosting import IDENTITY, KEYS, PATIENT_S, SECRET, client_of, close, host
from zmq.utils.monitor import recv_monitor_message

from deployments.host_client import HostClient
from deployments.host_server import HostServer
from deployments.sockets import Endpoint, TransportError, connect, listen
from deployments.transport_keys import TransportKeys
from deployments.transport_secret import VARIABLE, TransportSecretError, read_secrets
from deployments.wire import Wire

OTHER = "quite another secret, of another one"


@pytest.fixture
def server() -> Iterator[HostServer]:
    running = host([])
    yield running
    running.close()


@pytest.fixture
def context() -> Iterator[Any]:
    with zmq.Context() as context:
        yield context


def handshake(socket: zmq.Socket[bytes], address: str) -> int:
    """How a connection to `address` comes out."""
    events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    events |= zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    monitor = socket.get_monitor_socket(events)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(address)
    assert monitor.poll(int(PATIENT_S * 1e3)), "no handshake"
    event = recv_monitor_message(monitor)["event"]
    socket.disable_monitor()
    monitor.close()
    socket.close()
    return int(event)


def test_a_client_with_the_secret_gets_in(server: HostServer) -> None:
    client = client_of(server)
    assert not client.is_away
    close(client)


def test_a_client_with_another_secret_is_turned_away(context: Any, server: HostServer) -> None:
    stranger = TransportKeys([OTHER]).client_of(TransportKeys([OTHER]).host.public)
    assert stranger is not None
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.CURVE_SERVERKEY, server.endpoint.public_key)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, stranger.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, stranger.secret)
    assert handshake(socket, server.endpoint.address) != zmq.EVENT_HANDSHAKE_SUCCEEDED


def test_a_client_without_a_key_is_turned_away(context: Any, server: HostServer) -> None:
    socket = context.socket(zmq.DEALER)
    assert handshake(socket, server.endpoint.address) != zmq.EVENT_HANDSHAKE_SUCCEEDED


def test_without_a_gatekeeper_nobody_gets_in(context: Any) -> None:
    with zmq.Context() as unguarded:
        socket, endpoint = listen(unguarded, "127.0.0.1", KEYS)
        own = KEYS.client_of(endpoint.public_key)
        assert own is not None
        knocking = context.socket(zmq.DEALER)
        knocking.setsockopt(zmq.CURVE_SERVERKEY, endpoint.public_key)
        knocking.setsockopt(zmq.CURVE_PUBLICKEY, own.public)
        knocking.setsockopt(zmq.CURVE_SECRETKEY, own.secret)
        assert handshake(knocking, endpoint.address) != zmq.EVENT_HANDSHAKE_SUCCEEDED
        socket.close()


def test_a_host_of_another_secret_is_not_connected_to(context: Any) -> None:
    endpoint = Endpoint("tcp://127.0.0.1:1", TransportKeys([OTHER]).host.public)
    with pytest.raises(TransportError, match="another transport secret"):
        connect(context, endpoint, KEYS)
    client = HostClient(Wire(KEYS), IDENTITY, 1.0)
    client.find([endpoint])
    assert not client.wait(0.0)
    close(client)


@pytest.mark.parametrize("secrets", [[OTHER, SECRET], [SECRET, OTHER]])
def test_while_secrets_change_both_get_in(secrets: list[str]) -> None:
    changing = host([], TransportKeys(secrets))
    for keys in (TransportKeys(secrets), TransportKeys(secrets[:1])):
        client = HostClient(Wire(keys), IDENTITY, 1.0)
        client.find([changing.endpoint])
        assert client.wait(PATIENT_S)
        close(client)
    changing.close()
    settled = host([], TransportKeys(secrets[1:]))
    client = HostClient(Wire(TransportKeys(secrets)), IDENTITY, 1.0)
    client.find([settled.endpoint])
    assert client.wait(PATIENT_S)
    close(client)
    settled.close()


@pytest.mark.parametrize("address", ["0.0.0.0", "*", "::", "[::]", ""])
def test_a_host_does_not_listen_everywhere(context: Any, address: str) -> None:
    with pytest.raises(TransportError, match="own address"):
        listen(context, address, KEYS)


def test_an_address_that_is_not_this_machine_s_is_an_error(context: Any) -> None:
    with pytest.raises(TransportError, match=r"192\.0\.2\.1: cannot be listened on"):
        listen(context, "192.0.2.1", KEYS)


def test_keys_follow_from_the_secret_alone_and_are_not_shown() -> None:
    assert TransportKeys([SECRET]).host == KEYS.host
    assert TransportKeys([OTHER]).host != KEYS.host
    assert KEYS.client_of(KEYS.host.public) not in (None, KEYS.host)
    assert KEYS.host.secret.decode() not in repr(KEYS.host)


def test_the_environment_gives_one_secret_or_two() -> None:
    assert read_secrets({VARIABLE: SECRET}) == (SECRET.strip(),)
    two = f"{'a' * 32}, {'b' * 32}"
    assert read_secrets({VARIABLE: two}) == ("a" * 32, "b" * 32)


@pytest.mark.parametrize("value", ["", "short", "a" * 32 + ",", ",".join(["a" * 32] * 3)])
def test_what_is_no_secret_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(TransportSecretError, match=VARIABLE) as refused:
        read_secrets({VARIABLE: value})
    assert not value or value not in str(refused.value)


def test_without_the_environment_the_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    environ = {"HEDGEROW_STATE": str(tmp_path / "state")}
    (secret,) = read_secrets(environ)
    assert read_secrets(environ) == (secret,)
    (kept,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(secret) >= 32
    os.chmod(kept, 0o640)
    with pytest.raises(TransportSecretError, match="others may read it"):
        read_secrets(environ)
