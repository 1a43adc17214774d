"""YAML files: read strictly (a key given twice is an error, which PyYAML lets pass), written."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml


class YamlFileError(Exception):
    """The file cannot be read, or is not one YAML document without doubled keys."""


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise YamlFileError(f"line {line}: the key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise YamlFileError(f"cannot be read: {error}") from error
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, TypeError, RecursionError) as error:
        raise YamlFileError(f"is not YAML: {' '.join(str(error).split())}") from error


def dump_yaml(document: object) -> str:
    """The same text for the same document, its keys in their order."""
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text


def write_yaml(path: Path, document: object) -> None:
    path.write_text(dump_yaml(document), encoding="utf-8")
