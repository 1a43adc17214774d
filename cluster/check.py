"""Checks a Ray Serve config file of this project without starting anything.

Finds unknown keys at every level, Ray's own part included, and in our part also wrong types,
values out of range, and names that do not fit together. Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from cluster.config import DEPLOYMENT_SETTINGS, ClusterConfig, Section, TargetSettings
from cluster.problems import Path as KeyPath
from cluster.problems import Problem, unknown_key, validation_problems
from cluster.ray_keys import OPEN, RAY_KEYS
from cluster.yaml_file import YamlFileError, read_yaml

IMPORT_PATHS = ("deployments.app:build_app", "deployments.app:app")


def check_file(path: Path) -> list[Problem]:
    """All problems of the file, in its order; none if it can be served."""
    try:
        document = read_yaml(path)
    except YamlFileError as error:
        return [Problem((), f"{path}: {error}")]
    return check_document(document)


def check_document(document: object) -> list[Problem]:
    if not isinstance(document, Mapping):
        return [Problem((), "the file holds no mapping of keys")]
    problems = list(_ray_problems(document, "ServeDeploySchema", ()))
    applications = document.get("applications")
    if not isinstance(applications, list) or len(applications) != 1:
        return [*problems, Problem(("applications",), "expected a list of one application")]
    if isinstance(applications[0], Mapping):
        problems.extend(_application_problems(applications[0], ("applications", 0)))
    return problems


def _ray_problems(value: object, schema: str, path: KeyPath) -> Iterator[Problem]:
    """Unknown keys of Ray's part, in `value` and below."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _ray_problems(item, schema, (*path, index))
    elif isinstance(value, Mapping):
        keys = RAY_KEYS[schema]
        for key, child in value.items():
            if key not in keys:
                yield unknown_key(path, key, keys)
            elif keys[key] != OPEN:
                yield from _ray_problems(child, keys[key], (*path, key))
    elif value is not None:
        yield Problem(path, f"{value!r}: expected a mapping of keys")


def _application_problems(application: Mapping[str, object], path: KeyPath) -> Iterator[Problem]:
    import_path = application.get("import_path")
    if import_path not in IMPORT_PATHS:
        allowed = " or ".join(IMPORT_PATHS)
        yield Problem((*path, "import_path"), f"{import_path!r}: expected {allowed}")
    args_path = (*path, "args")
    config, problems = _validate(ClusterConfig, application.get("args"), args_path)
    yield from problems
    deployments = application.get("deployments") or []
    if not isinstance(deployments, list):
        return
    seen: set[object] = set()
    for index, deployment in enumerate(deployments):
        if isinstance(deployment, Mapping):
            where = (*path, "deployments", index)
            yield from _deployment_problems(deployment, where, config)
            if deployment.get("name") in seen:
                yield Problem((*where, "name"), "this deployment is given twice")
            seen.add(deployment.get("name"))


def _deployment_problems(
    deployment: Mapping[str, object], path: KeyPath, config: Section | None
) -> Iterator[Problem]:
    name = deployment.get("name")
    model = DEPLOYMENT_SETTINGS.get(str(name))
    if model is None:
        allowed = ", ".join(sorted(DEPLOYMENT_SETTINGS))
        yield Problem((*path, "name"), f"{name!r} is no deployment; one of {allowed}")
        return
    where = (*path, "user_config")
    settings, problems = _validate(model, deployment.get("user_config"), where)
    yield from problems
    if isinstance(settings, TargetSettings) and isinstance(config, ClusterConfig):
        known = ", ".join(drafter.name for drafter in config.drafters) or "none"
        for selector, drafter in settings.unknown_drafters(config):
            message = f"{drafter!r} is no configured drafter; configured: {known}"
            yield Problem((*where, *selector.split(".")), message)


def _validate(
    model: type[Section], data: object, path: KeyPath
) -> tuple[Section | None, list[Problem]]:
    """An absent section is its defaults."""
    value = {} if data is None else data
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        return None, validation_problems(error, model, value, path)
