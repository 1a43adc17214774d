"""What an API server does with a custom resource: fills in defaults, refuses what is not described.

Rules in CEL are not evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Json = Mapping[str, Any]


def read_schema(crd: Path, version: str) -> dict[str, Any]:
    """Of one version of a CustomResourceDefinition."""
    document = yaml.load(crd.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    (found,) = (each for each in document["spec"]["versions"] if each["name"] == version)
    schema: dict[str, Any] = found["schema"]["openAPIV3Schema"]
    return schema


def with_defaults(value: Any, schema: Json) -> Any:
    """`value` with the defaults of keys that are absent, at every depth."""
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        filled = {key: prop["default"] for key, prop in properties.items() if "default" in prop}
        others = schema.get("additionalProperties")
        for key, item in value.items():
            below = properties.get(key, others if isinstance(others, Mapping) else {})
            filled[key] = with_defaults(item, below)
        return filled
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items", {})) for item in value]
    return value


def unknown_fields(value: Any, schema: Json, path: str = "") -> Iterator[str]:
    """Fields that the schema does not describe, which an API server drops or refuses."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, Mapping):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if key in properties:
                yield from unknown_fields(item, properties[key], f"{path}.{key}")
            elif isinstance(others, Mapping):
                yield from unknown_fields(item, others, f"{path}.{key}")
            elif not others and not _is_open(schema, path):
                yield f"{path}.{key}"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_fields(item, schema.get("items", {}), f"{path}[{index}]")


def problems(document: Json, schema: Json) -> list[str]:
    """Everything that an API server would refuse `document` for."""
    found = list(unknown_fields(document, schema))
    validator = jsonschema.Draft202012Validator(_as_json_schema(schema))
    errors = validator.iter_errors(with_defaults(document, schema))
    return found + [f"{error.json_path}: {error.message}" for error in errors]


def _is_open(schema: Json, path: str) -> bool:
    """`metadata` at the top is checked by another schema, that of all objects."""
    return path == ".metadata" and "properties" not in schema


def _as_json_schema(schema: Any) -> Any:
    """OpenAPI's dialect as JSON schema's."""
    if isinstance(schema, list):
        return [_as_json_schema(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: _as_json_schema(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        found.pop("anyOf", None)
        found["type"] = ["integer", "string"]
    elif schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found
