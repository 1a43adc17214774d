"""The application that is built from a config file's sections: its deployments and resources."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.config import DrafterSection, TargetSection
from deployments.app import app, build_app
from engine.config import DrafterConfig, TargetConfig


def test_the_file_s_sections_have_exactly_the_engine_s_fields() -> None:
    assert list(TargetSection.model_fields) == [field.name for field in fields(TargetConfig)]
    engines = [name for name in DrafterSection.model_fields if name != "host"]
    assert engines == [field.name for field in fields(DrafterConfig)]


def test_the_application_is_built_from_args_and_from_the_repository_s_file() -> None:
    assert build_app({}) is not None
    assert app is not None


def test_each_host_is_a_deployment_with_its_resources_for_the_target_to_find() -> None:
    drafters = [{"name": name, "kind": "suffix", "host": name} for name in ("code", "math")]
    resources = {"num_gpus": 1.0, "num_cpus": 2.0, "resources": {"fast": 1.0}}
    hosts = [{"name": "code", "num_replicas": 3, **resources}, {"name": "math"}]
    application: Any = build_app({"drafters": drafters, "hosts": hosts})
    _, target, _ = application._bound_deployment.init_args
    config, router, found = target._bound_deployment.init_args
    deployments = {name: host._bound_deployment for name, host in found.items()}
    assert {d.name for d in deployments.values()} == {"Drafter-code", "Drafter-math"}
    assert deployments["code"].num_replicas == 3
    assert deployments["code"].ray_actor_options.items() >= resources.items()
    assert deployments["math"].ray_actor_options["num_gpus"] == 0
    assert deployments["math"].init_args == (config, "math", router)


def test_wrong_args_are_refused_before_anything_starts() -> None:
    with pytest.raises(ValidationError, match="modl"):
        build_app({"target": {"modl": "x"}})
