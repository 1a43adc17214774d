"""The keys that Ray Serve reads from its config file, as data: Ray ignores those it does not know.

A test in tests/deployments compares this table with `ray.serve.schema`, so that it cannot drift.
"""

from __future__ import annotations

from collections.abc import Mapping

OPEN = "any keys"
"""The value is free-form: Ray passes it on as it is."""

_DEPLOYMENT = {
    "autoscaling_config": "AutoscalingConfig",
    "backpressure_config": "BackpressureConfig",
    "deployment_actors": "DeploymentActorConfig",
    "gang_scheduling_config": "GangSchedulingConfig",
    "graceful_shutdown_timeout_s": OPEN,
    "graceful_shutdown_wait_loop_s": OPEN,
    "health_check_period_s": OPEN,
    "health_check_timeout_s": OPEN,
    "logging_config": "LoggingConfig",
    "max_ongoing_requests": OPEN,
    "max_queued_requests": OPEN,
    "max_replicas_per_node": OPEN,
    "max_surge_percent": OPEN,
    "name": OPEN,
    "num_replicas": OPEN,
    "placement_group_bundle_label_selector": OPEN,
    "placement_group_bundles": OPEN,
    "placement_group_strategy": OPEN,
    "ray_actor_options": "RayActorOptionsSchema",
    "request_router_config": "RequestRouterConfig",
    "rolling_update_percentage": OPEN,
    "user_config": OPEN,
}

_AUTOSCALING = (
    "aggregation_function",
    "downscale_delay_s",
    "downscale_smoothing_factor",
    "downscale_to_zero_delay_s",
    "downscaling_factor",
    "initial_replicas",
    "look_back_period_s",
    "max_replicas",
    "metrics_interval_s",
    "min_replicas",
    "smoothing_factor",
    "target_ongoing_requests",
    "upscale_delay_s",
    "upscale_smoothing_factor",
    "upscaling_factor",
)


def _open(*keys: str) -> dict[str, str]:
    return dict.fromkeys(keys, OPEN)


RAY_KEYS: Mapping[str, Mapping[str, str]] = {
    "ServeDeploySchema": {
        "applications": "ServeApplicationSchema",
        "controller_options": "ControllerOptions",
        "grpc_options": "gRPCOptionsSchema",
        "http_options": "HTTPOptionsSchema",
        "logging_config": "LoggingConfig",
        "proxy_location": OPEN,
        "target_capacity": OPEN,
        "tracing_config": "TracingConfig",
    },
    "ServeApplicationSchema": {
        "args": OPEN,
        "autoscaling_policy": "AutoscalingPolicy",
        "deployments": "DeploymentSchema",
        "external_scaler_enabled": OPEN,
        "host": OPEN,
        "import_path": OPEN,
        "logging_config": "LoggingConfig",
        "name": OPEN,
        "port": OPEN,
        "route_prefix": OPEN,
        "runtime_env": OPEN,
    },
    "DeploymentSchema": _DEPLOYMENT,
    "HTTPOptionsSchema": _open(
        "host",
        "keep_alive_timeout_s",
        "port",
        "request_timeout_s",
        "root_path",
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_keyfile_password",
    ),
    "gRPCOptionsSchema": _open(
        "enable_reflection", "grpc_servicer_functions", "port", "request_timeout_s"
    ),
    "ControllerOptions": _open("runtime_env"),
    "LoggingConfig": _open(
        "additional_log_standard_attrs", "enable_access_log", "encoding", "log_level", "logs_dir"
    ),
    "TracingConfig": _open("enabled", "exporter_import_path", "sampling_ratio"),
    "RayActorOptionsSchema": _open(
        "accelerator_type",
        "fallback_strategy",
        "label_selector",
        "memory",
        "num_cpus",
        "num_gpus",
        "resources",
        "runtime_env",
    ),
    "AutoscalingConfig": {**_open(*_AUTOSCALING), "policy": "AutoscalingPolicy"},
    "AutoscalingPolicy": _open("policy_function", "policy_kwargs"),
    "BackpressureConfig": _open("retry_after_s", "status_code"),
    "RequestRouterConfig": _open(
        "backoff_multiplier",
        "initial_backoff_s",
        "max_backoff_s",
        "request_router_class",
        "request_router_kwargs",
        "request_routing_stats_period_s",
        "request_routing_stats_timeout_s",
    ),
    "GangSchedulingConfig": _open("gang_placement_strategy", "gang_size", "runtime_failure_policy"),
    "DeploymentActorConfig": _open(
        "actor_class", "actor_options", "init_args", "init_kwargs", "name"
    ),
}
