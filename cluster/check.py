"""Checks a Ray Serve config file of this project without starting anything.

Finds unknown keys at every level, Ray's own part included, and in our part also wrong types,
values out of range, names that do not fit together, and drafters' folders that are not for the
target; of Ray's values only those without which the application could not be reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from cluster.config import ClusterConfig, Section
from cluster.drafter_folder import folder_problems
from cluster.problems import Path as KeyPath
from cluster.problems import Problem, unknown_key, validation_problems
from cluster.ray_keys import OPEN, RAY_KEYS
from cluster.serve_options import (
    IMPORT_PATHS,
    PROXY_LOCATIONS,
    ROUTE_PREFIX,
    TAKES_NO_ARGS,
    HttpOptions,
)
from cluster.settings import DEPLOYMENT_SETTINGS, TargetSettings
from cluster.yaml_file import YamlFileError, read_yaml

_LISTS = ("deployments", "deployment_actors")  # beside `applications`
_NEVER_NULL = ("deployments", "http_options")


def check_file(path: Path) -> list[Problem]:
    """All problems of the file, in its order; none if it can be served."""
    try:
        document = read_yaml(path)
    except YamlFileError as error:
        return [Problem((), f"{path}: {error}")]
    return check_document(document)


def check_document(document: object, *, is_for_pods: bool = False) -> list[Problem]:
    """As `check_file`. Drafters' folders in pods are not here: whoever loads them refuses them."""
    if not isinstance(document, Mapping):
        return [Problem((), "the file holds no mapping of keys")]
    problems = [*_ray_problems(document, "ServeDeploySchema", ()), *_http_problems(document)]
    applications = document.get("applications")
    if not isinstance(applications, list) or len(applications) != 1:
        return [*problems, Problem(("applications",), "expected a list of one application")]
    if isinstance(applications[0], Mapping):
        problems.extend(_application_problems(applications[0], is_for_pods))
    return problems


def _ray_problems(value: object, schema: str, path: KeyPath) -> Iterator[Problem]:
    """Unknown keys of Ray's part, in `value` and below, and what is no mapping of keys."""
    if not isinstance(value, Mapping):
        yield Problem(path, f"{value!r}: expected a mapping of keys")
        return
    keys = RAY_KEYS[schema]
    for key, child in value.items():
        where = (*path, key)
        if key not in keys:
            yield unknown_key(path, key, keys)
        elif keys[key] == OPEN or (child is None and key not in _NEVER_NULL):
            continue
        elif isinstance(child, list) and (key in _LISTS or key == "applications"):
            for index, item in enumerate(child):
                yield from _ray_problems(item, keys[key], (*where, index))
        elif key in _LISTS:
            yield Problem(where, f"{child!r}: expected a list")
        elif key != "applications":
            yield from _ray_problems(child, keys[key], where)


def _http_problems(document: Mapping[str, object]) -> Iterator[Problem]:
    location = document.get("proxy_location", PROXY_LOCATIONS[0])
    if location not in PROXY_LOCATIONS:
        allowed = " or ".join(PROXY_LOCATIONS)
        yield Problem(("proxy_location",), f"{location!r}: expected {allowed}")
    options = document.get("http_options")
    if isinstance(options, Mapping):
        known = {key: options[key] for key in HttpOptions.model_fields if key in options}
        yield from _validate(HttpOptions, known, ("http_options",))[1]


def _application_problems(
    application: Mapping[str, object], is_for_pods: bool
) -> Iterator[Problem]:
    path: KeyPath = ("applications", 0)
    import_path = application.get("import_path")
    if import_path not in IMPORT_PATHS:
        allowed = " or ".join(IMPORT_PATHS)
        yield Problem((*path, "import_path"), f"{import_path!r}: expected {allowed}")
    prefix = application.get("route_prefix", ROUTE_PREFIX)
    if prefix != ROUTE_PREFIX:
        yield Problem((*path, "route_prefix"), f"{prefix!r}: expected {ROUTE_PREFIX!r}")
    args, config = application.get("args", {}), None
    if import_path != TAKES_NO_ARGS:
        config, problems = _validate(ClusterConfig, args, (*path, "args"))
        yield from problems
        if isinstance(config, ClusterConfig):
            yield from _drafter_problems(config, is_for_pods, (*path, "args", "drafters"))
    elif args != {}:
        message = f"{TAKES_NO_ARGS} takes none; give them to {IMPORT_PATHS[0]}"
        yield Problem((*path, "args"), message)
    deployments, seen = application.get("deployments"), list[object]()
    for index, deployment in enumerate(deployments if isinstance(deployments, list) else ()):
        if isinstance(deployment, Mapping):
            where, name = (*path, "deployments", index), deployment.get("name")
            yield from _deployment_problems(deployment, where, config)
            if name in seen:
                yield Problem((*where, "name"), "this deployment is given twice")
            seen.append(name)


def _drafter_problems(config: ClusterConfig, is_for_pods: bool, path: KeyPath) -> Iterator[Problem]:
    """Folders of drafters that cannot draft for this target."""
    model = config.target.model
    for index, drafter in enumerate(config.drafters):
        if drafter.path is None or (is_for_pods and any(map(_is_away, (drafter.path, model)))):
            continue
        stops = drafter.stop_threshold is not None
        for message in folder_problems(drafter.path, drafter.kind, model, stops):
            yield Problem((*path, index, "path"), message)


def _is_away(path: str) -> bool:
    return Path(path).is_absolute() and not Path(path).exists()


def _deployment_problems(
    deployment: Mapping[str, object], path: KeyPath, config: Section | None
) -> Iterator[Problem]:
    name = deployment.get("name")
    hosts = config.hosts if isinstance(config, ClusterConfig) else ()
    models = DEPLOYMENT_SETTINGS | {host.deployment: Section for host in hosts}
    model = models.get(str(name))
    if model is None:
        allowed = ", ".join(sorted(models))
        yield Problem((*path, "name"), f"{name!r} is no deployment; one of {allowed}")
        return
    where = (*path, "user_config")
    user_config = deployment.get("user_config")
    settings, problems = _validate(model, {} if user_config is None else user_config, where)
    yield from problems
    if isinstance(settings, TargetSettings) and isinstance(config, ClusterConfig):
        known = ", ".join(drafter.name for drafter in config.drafters) or "none"
        for selector, drafter in settings.unknown_drafters(config):
            message = f"{drafter!r} is no configured drafter; configured: {known}"
            yield Problem((*where, *selector.split(".")), message)


def _validate(
    model: type[Section], data: object, path: KeyPath
) -> tuple[Section | None, list[Problem]]:
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, validation_problems(error, model, data, path)
