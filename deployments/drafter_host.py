"""A host replica: the drafters that name it, on its own device, for the targets of the cluster.

Serve starts it, checks it and tells where it is; what targets ask comes over the data plane.
"""

from __future__ import annotations

from collections.abc import Mapping

import ray

from cluster.config import ClusterConfig, HostSection
from deployments.host_server import HostServer
from deployments.host_service import HostService
from deployments.identity import identity_of
from deployments.sockets import Endpoint
from deployments.transport_keys import TransportKeys
from deployments.transport_secret import read_secrets
from engine.config import DrafterConfig, TargetConfig
from engine.model_files import resolve_model


class DrafterHost:
    """Serves the drafters of `config` whose host is `name`; loads for seconds, then answers."""

    def __init__(self, config: Mapping[str, object], name: str) -> None:
        from engine.build import build_hosted_drafters  # loads torch

        cluster = ClusterConfig.model_validate(config)
        (host,) = (each for each in cluster.hosts if each.name == name)
        drafters = [
            DrafterConfig(**drafter.model_dump(exclude={"host"}))
            for drafter in cluster.drafters_at(name)
        ]
        service = HostService(
            build_hosted_drafters(_settings(cluster, host), drafters),
            identity_of(resolve_model(cluster.target.model), cluster, name),
        )
        keys = TransportKeys(read_secrets())
        node_ip: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._server = HostServer(service, node_ip, keys)

    async def endpoint(self) -> Endpoint:
        return self._server.endpoint

    async def check_health(self) -> None:
        self._server.check()


def _settings(cluster: ClusterConfig, host: HostSection) -> TargetConfig:
    """The target's, as far as the host has no own."""
    target = cluster.target
    own = host.model_dump(include={"device", "dtype", "num_threads", "num_kv_tokens"})
    given = {key: value for key, value in own.items() if value is not None}
    return TargetConfig(**{**target.model_dump(), "num_threads": None, **given})
