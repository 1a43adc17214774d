"""The composition root: from the configuration's args to a Ray Serve application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from cluster.config import ClusterConfig, HostSection
from cluster.yaml_file import read_yaml
from deployments.drafter_host import DrafterHost
from deployments.ingress import Ingress
from deployments.router import Router
from deployments.target import Target

MAX_ONGOING_REQUESTS = 4096
"""Of each replica: the engine's queue and the limits say no first, and say it in OpenAI's shape."""

SESSION_ROUTING: dict[str, Any] = {
    "request_router_class": "deployments.session_router.SessionRouter",
    "request_router_kwargs": {"num_fallback_replicas": 63},
}

CONFIG_FILE = Path(__file__).parents[1] / "ray_config.yaml"


def build_app(args: dict[str, Any]) -> Application:
    """`args` is `applications[0].args` of ray_config.yaml; raises if anything in it is wrong."""
    cluster = ClusterConfig.model_validate(args)
    config = cluster.model_dump(mode="json")
    target = serve.deployment(
        name="Target",
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": 0.5},  # what Ray books, so that one core is enough
        request_router_config=RequestRouterConfig(**SESSION_ROUTING),
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
        graceful_shutdown_timeout_s=5.0,  # then its streams go on elsewhere
    )(Target)
    ingress = serve.deployment(
        name="Ingress",
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": 0.25},
        graceful_shutdown_timeout_s=5.0,
    )(serve.ingress()(Ingress))
    router = serve.deployment(
        name="Router",
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": 0.1},
        graceful_shutdown_timeout_s=5.0,
    )(Router)
    owner = router.bind(config)
    hosts = {host.name: _host(host).bind(config, host.name, owner) for host in cluster.hosts}
    return ingress.bind(config, target.bind(config, owner, hosts), owner)


def _host(section: HostSection) -> serve.Deployment:
    return serve.deployment(
        name=section.deployment,
        num_replicas=section.num_replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        ray_actor_options={
            "num_cpus": section.num_cpus,
            "num_gpus": section.num_gpus,
            "resources": section.resources,
        },
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
        graceful_shutdown_timeout_s=1.0,  # losing a host loses nothing
    )(DrafterHost)


def _default_args() -> dict[str, Any]:
    document: Any = read_yaml(CONFIG_FILE)
    args: dict[str, Any] = document["applications"][0]["args"]
    return args


def __getattr__(name: str) -> Application:
    """`app`, for `serve build`: built when asked for, so that importing reads no file."""
    if name != "app":
        raise AttributeError(name)
    return build_app(_default_args())
