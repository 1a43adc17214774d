"""The target's hosts: a client and drafters for each, and the thread that looks where they are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.config import ClusterConfig
from deployments.host_client import HostClient
from deployments.identity import identity_of
from deployments.remote_drafter import RemoteDrafter
from deployments.sockets import Endpoint
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
        self.drafters = [
            RemoteDrafter(drafter.name, drafter.max_draft_length, self._clients[drafter.host])
            for drafter in config.drafters
            if drafter.host is not None
        ]
        for name in self._clients:
            threading.Thread(
                target=self._look, args=(name,), name=f"find {name}", daemon=True
            ).start()

    def _look(self, name: str) -> None:
        """For ever: a host that is replaced listens elsewhere."""
        client, pause = self._clients[name], threading.Event()
        while True:
            try:
                found = self._handles[name].broadcast("endpoint")
                answers = found.results(timeout_s=_LOOKUP_TIMEOUT_S, return_exceptions=True)
                client.find([each for each in answers if isinstance(each, Endpoint)])
            except Exception as error:  # not started yet, or Serve is busy replacing it
                logger.info("host %s is not to be found: %s", name, type(error).__name__)
            pause.wait(_LOOK_SOON_S if client.is_away else _LOOK_EVERY_S)
