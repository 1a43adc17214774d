"""Hosts in this process and clients of theirs, over real sockets on the loopback."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from deployments.host_client import HostClient
from deployments.host_server import HostServer
from deployments.host_service import HostService
from deployments.messages import Identity
from deployments.remote_drafter import RemoteDrafter
from deployments.transport_keys import TransportKeys
from deployments.wire import Wire
from engine.drafters.drafter import Drafter, Outcome, ScoreRequest

SECRET = "a secret of the tests' own and no other"
KEYS = TransportKeys([SECRET])
IDENTITY = Identity("vocabulary", "weights")
PATIENT_S = 60.0  # on a machine that does something else


def host(drafters: Sequence[Drafter], keys: TransportKeys = KEYS) -> HostServer:
    return HostServer(HostService(drafters, IDENTITY), "127.0.0.1", keys)


def client_of(*servers: HostServer, timeout_s: float = PATIENT_S) -> HostClient:
    """One that has found all of them."""
    client = HostClient(Wire(KEYS), IDENTITY, timeout_s)
    client.find([server.endpoint for server in servers])
    assert client.wait(PATIENT_S), "the host does not answer"
    while any(not link.is_ready for link in client._links.values()):
        client.wait(PATIENT_S)
    return client


def close(client: HostClient) -> None:
    """With a wire of its own."""
    client.close()
    client._wire.close()


class Hosted:
    """Drafters on a host of their own: `with Hosted(drafter) as (remote,)`; `kind` is of those."""

    def __init__(
        self,
        *drafters: Drafter,
        timeout_s: float = PATIENT_S,
        kind: type[RemoteDrafter] = RemoteDrafter,
    ) -> None:
        self.server = host(drafters)
        self.client = client_of(self.server, timeout_s=timeout_s)
        self.remotes = [kind(d.name, d.max_draft_length, self.client) for d in drafters]

    def __enter__(self) -> list[RemoteDrafter]:
        return self.remotes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        close(self.client)
        self.server.close()


class Settled(RemoteDrafter):
    """Waits for all scores, and until the host has forgotten, so that a test can look."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        at_once = super().score(requests)
        for request in requests:
            for question, _ in self._scoring.get(request.sequence_id, ()):
                while not question.is_over:
                    self._client.wait_for([question], PATIENT_S)
        return [
            first + self._scored(request.sequence_id)
            for first, request in zip(at_once, requests, strict=True)
        ]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        super().forget(sequence_ids)
        for link in self._client._links.values():
            link.owe(self._client._next_number(), 0.0)
        assert self._client.wait(PATIENT_S)


class OverZmq:
    """Makes drafters that `local` makes, on a host of their own; the last few of them live."""

    def __init__(self, local: Callable[[], Drafter]) -> None:
        self.local = local
        self._live: deque[Hosted] = deque()

    def __call__(self) -> Drafter:
        while len(self._live) >= 3:
            self._live.popleft().close()
        drafter = self.local()
        self._live.append(Hosted(drafter))
        return Settled(drafter.name, drafter.max_draft_length, self._live[-1].client)

    def close(self) -> None:
        while self._live:
            self._live.pop().close()
