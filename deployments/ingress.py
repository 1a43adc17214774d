"""An ingress replica: HTTP in front of the target. Loads the tokenizer, never torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI
from ray import serve

from cluster.config import ClusterConfig
from cluster.limits.redis_limiter import RedisLimiter
from cluster.limits.redis_usage import RedisUsage
from cluster.redis_connection import RedisConnection
from cluster.settings import IngressSettings
from cluster.tenants.address import tenants_url
from cluster.tenants.redis_store import RedisTenants
from deployments.admission import Admission
from deployments.authentication import Authentication
from deployments.gateway import Gateway
from deployments.http import build_http
from deployments.metric_families import Family
from deployments.metrics_export import ExportThread, RayInstruments
from deployments.target_client import CONTROL_TIMEOUT_S, HandleClient
from engine.model_files import resolve_model
from engine.text import Text


class Ingress:
    """`target` and `router` are the Serve handles of these deployments.

    Raises UrlError if the address of the tenants' Redis cannot be used.
    """

    def __init__(self, config: Mapping[str, object], target: Any, router: Any) -> None:
        section = ClusterConfig.model_validate(config).target
        text = Text.load(resolve_model(section.model))
        self._gateway = Gateway(HandleClient(target, router), text, IngressSettings().limits)
        self._redis = RedisConnection(tenants_url(), os.environ, "tenants")
        client = lambda: self._redis.client  # noqa: E731
        self._authentication = Authentication(RedisTenants(client))
        self._admission = Admission(RedisLimiter(client), RedisUsage(client))
        self._export = ExportThread(self._admission.counts.families, RayInstruments())

    def __serve_build_asgi_app__(self) -> FastAPI:  # the name that serve.ingress() asks for
        return build_http(
            self._gateway, self._authentication, self._admission, self._families_of_all
        )

    def families(self) -> list[Family]:
        """Of this replica, for another one's `/metrics`."""
        return self._admission.counts.families()

    async def _families_of_all(self) -> list[Family]:
        """Of every replica of the ingress that answers; at least of this one."""
        try:
            response = _own_handle().broadcast("families")
            found = await response.results_async(timeout_s=CONTROL_TIMEOUT_S)
        except Exception:
            found = []
        return [family for replica in found for family in replica] or self.families()

    def reconfigure(self, user_config: Mapping[str, object]) -> None:
        self._gateway.apply(IngressSettings.model_validate(user_config))

    def __del__(self) -> None:  # the name that Serve calls in the end
        if hasattr(self, "_export"):
            self._export.stop()
        if hasattr(self, "_admission"):
            self._admission.close()
            self._redis.close()


@cache
def _own_handle() -> Any:
    """Serve's, of the deployment whose replica this is."""
    context = serve.get_replica_context()
    return serve.get_deployment_handle(context.deployment, context.app_name)
