"""The target's hosts: a client and drafters for each, and the thread that looks where they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.config import ClusterConfig, DrafterSection
from deployments.host_client import HostClient
from deployments.host_status import HostStatus
from deployments.identity import identity_of
from deployments.remote_drafter import RemoteDrafter
from deployments.target_counters import DrafterNote
from deployments.transport_keys import TransportKeys
from deployments.transport_secret import read_secrets
from deployments.wire import Wire

_LOOK_EVERY_S = 2.0
_LOOK_SOON_S = 0.25  # while nobody of a host answers
_LOOKUP_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)


class Hosts:
    """`model` is the target's folder, `handles` are the Serve handles of the hosts' deployments, by
    the hosts' names."""

    def __init__(self, config: ClusterConfig, model: Path, handles: Mapping[str, Any]) -> None:
        self._handles = handles
        wire = Wire(TransportKeys(read_secrets()))
        self._clients = {
            host.name: HostClient(wire, identity_of(model, config, host.name), host.draft_timeout_s)
            for host in config.hosts
        }
        self._statuses: dict[str, Sequence[HostStatus]] = {}
        for name in self._clients:
            threading.Thread(
                target=self._look, args=(name,), name=f"find {name}", daemon=True
            ).start()

    def drafter(self, section: DrafterSection) -> RemoteDrafter:
        """A drafter of the host that `section` names."""
        assert section.host is not None
        client = self._clients[section.host]
        return RemoteDrafter(section.name, section.max_draft_length, client)

    def keep(self, sections: Sequence[DrafterSection]) -> None:
        """Hosts of none of these forget all sequences. On the engine's thread."""
        for name in self._clients.keys() - {section.host for section in sections}:
            self._clients[name].forget_all()

    def note_of(self, section: DrafterSection) -> DrafterNote | None:
        """What its host says of a drafter that it has not loaded; None if it has, or is away."""
        statuses = self._statuses.get(str(section.host), ())
        if all(section.name in status.loaded for status in statuses):
            return None
        reasons = [
            status.refused[section.name] for status in statuses if section.name in status.refused
        ]
        return DrafterNote("failed", reasons[0]) if reasons else DrafterNote("loading")

    def _look(self, name: str) -> None:
        """For ever: a host that is replaced listens elsewhere."""
        client, pause = self._clients[name], threading.Event()
        while True:
            try:
                found = self._handles[name].broadcast("status")
                answers = found.results(timeout_s=_LOOKUP_TIMEOUT_S, return_exceptions=True)
                statuses = [each for each in answers if isinstance(each, HostStatus)]
                self._statuses[name] = statuses or self._statuses.get(name, ())
                loaded = [status.loaded for status in self._statuses[name]] or [frozenset[str]()]
                client.find([s.endpoint for s in statuses], frozenset.intersection(*loaded))
            except Exception as error:  # not started yet, or Serve is busy replacing it
                logger.info("host %s is not to be found: %s", name, type(error).__name__)
            pause.wait(_LOOK_SOON_S if client.is_away else _LOOK_EVERY_S)
