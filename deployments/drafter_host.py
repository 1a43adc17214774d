"""A host replica: the drafters that name it, on its own device, for the targets of the cluster.

Serve starts it, checks it and tells where it is; what targets ask comes over the data plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from cluster.config import ClusterConfig, DrafterSection, HostSection
from cluster.drafter_changes import DrafterChanges
from deployments.drafter_changer import DrafterChanger
from deployments.drafter_watch import DrafterWatch
from deployments.host_server import HostServer
from deployments.host_service import HostService
from deployments.host_status import HostStatus
from deployments.identity import identity_of
from deployments.live_drafters import LiveDrafters, engine_config
from deployments.model_card import fingerprint
from deployments.transport_keys import TransportKeys
from deployments.transport_secret import read_secrets
from engine.config import TargetConfig
from engine.drafters.drafter import Drafter
from engine.model_files import resolve_model


class DrafterHost:
    """Serves the drafters of `config` whose host is `name`; loads for seconds, then answers.

    `router` is the Serve handle of the deployment Router, which knows of changes.
    """

    def __init__(self, config: Mapping[str, object], name: str, router: Any) -> None:
        from engine.build import build_drafter, read_target  # loads torch

        self._config = ClusterConfig.model_validate(config)
        (host,) = (each for each in self._config.hosts if each.name == name)
        self._name = name
        target = read_target(settings_at(self._config, host))

        def build(section: DrafterSection) -> Drafter:
            return build_drafter(engine_config(section), target)

        drafters = list(map(build, self._config.drafters_at(name)))
        folder = resolve_model(self._config.target.model)
        identity = identity_of(folder, self._config, name)
        self._service = HostService(drafters, identity, drafts_ahead=host.draft_ahead)
        keys = TransportKeys(read_secrets())
        node_ip: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._server = HostServer(self._service, node_ip, keys)
        self._drafters = LiveDrafters(drafters, build, self._use)
        self._watch = DrafterWatch(DrafterChanger(router, fingerprint(folder)), self._follow)

    async def status(self) -> HostStatus:
        drafters = self._drafters
        return HostStatus(self._server.endpoint, drafters.loaded, drafters.refused)

    async def check_health(self) -> None:
        self._server.check()

    def _follow(self, changes: DrafterChanges) -> bool:
        return self._drafters.follow(changes.apply(self._config).drafters_at(self._name))

    def _use(self, drafters: Sequence[Drafter]) -> None:
        self._server.do(lambda: self._service.use_drafters(drafters))


def settings_at(cluster: ClusterConfig, host: HostSection) -> TargetConfig:
    """The target's, as far as the host has no own."""
    target = cluster.target
    own = host.model_dump(include={"device", "dtype", "num_threads", "num_kv_tokens"})
    given = {key: value for key, value in own.items() if value is not None}
    merged = {**target.model_dump(), "num_threads": None, **given}
    if (merged["device"], merged["dtype"]) != (target.device, target.dtype):
        merged["quantization"] = None  # which is for the target's own device and type
    return TargetConfig(**merged)
