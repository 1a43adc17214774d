"""The Serve config of a cluster: a values file merged into the file that it extends, and so on.

Mappings are merged key by key and lists of named things by name; null takes a key away, an entry
`{name: NAME, $patch: delete}` the one of that name, and anything else replaces what was there. The
end of the chain is ray_config.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.check import check_document
from cluster.yaml_file import YamlFileError, dump_yaml, read_yaml

EXTENDS = "extends"
"""The key of a values file that names the file it changes, from its own folder."""

_PATCH = "$patch"  # as in Kubernetes' strategic merges
_PATCH_HEADER = """\
# Written by `make render` from values.yaml and what that extends; not to be edited.
- op: replace
  path: /spec/serveConfigV2
  value: |
"""


class ServeConfigError(Exception):
    """The files make no Serve config; the message has one line for each reason."""


def merged(base: object, changes: object) -> object:
    """`base` with `changes`; neither is altered."""
    if isinstance(base, Mapping) and isinstance(changes, Mapping):
        result = {key: value for key, value in base.items() if changes.get(key, "") is not None}
        for key, value in changes.items():
            if value is not None:
                result[key] = merged(base[key], value) if key in base else _without_nulls(value)
        return result
    if _is_named(base) and _is_named(changes):
        return _merged_by_name(base, changes)
    return changes


def serve_config(values: Path) -> dict[str, Any]:
    """What `values` and all that it extends come to, for pods. Raises ServeConfigError."""
    document = _chain(values, ())
    problems = check_document(document, is_for_pods=True)
    if problems:
        raise ServeConfigError("\n".join(f"{values}: {problem}" for problem in problems))
    return document


def json_patch(document: Mapping[str, object]) -> str:
    """A JSON6902 patch in YAML that sets a RayService's serveConfigV2, which is one string."""
    lines = dump_yaml(document).splitlines()
    return _PATCH_HEADER + "".join(f"    {line}\n" if line else "\n" for line in lines)


def _chain(path: Path, above: Sequence[Path]) -> dict[str, Any]:
    if path.resolve() in above:
        raise ServeConfigError(f"{path}: it extends itself")
    try:
        document = read_yaml(path)
    except YamlFileError as error:
        raise ServeConfigError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise ServeConfigError(f"{path}: the file holds no mapping of keys")
    if EXTENDS not in document:
        return document
    below = document.pop(EXTENDS)
    if not isinstance(below, str):
        raise ServeConfigError(f"{path}: {EXTENDS}: {below!r}: expected the path of a file")
    base = _chain(path.parent / below, (*above, path.resolve()))
    result = merged(base, document)
    assert isinstance(result, dict)
    return result


def _is_named(value: object) -> bool:
    """Whether it is a list of mappings that all have names."""
    return isinstance(value, list) and all(
        isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in value
    )


def _merged_by_name(base: Any, changes: Any) -> list[object]:
    """In the order of `base`, new ones after them."""
    changed = {item["name"]: item for item in changes}
    gone = {name for name, item in changed.items() if item.get(_PATCH) == "delete"}
    if unknown := gone - {item["name"] for item in base}:
        raise ServeConfigError(f"{_PATCH}: delete: there is no {sorted(unknown)[0]!r}")
    kept = [
        merged(item, changed.pop(item["name"], {})) for item in base if item["name"] not in gone
    ]
    added = [item for name, item in changed.items() if name not in gone]
    return [*kept, *map(_without_nulls, added)]


def _without_nulls(value: object) -> object:
    """Keys that are taken away where there were none."""
    if not isinstance(value, Mapping):
        return value
    return {key: _without_nulls(item) for key, item in value.items() if item is not None}
