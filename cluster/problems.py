"""What is wrong in a configuration, each with its path, what was found and what is allowed."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cluster.config import Section

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake at `path`, in words for the operator."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


def dotted(path: Path) -> str:
    """`("applications", 0, "args")` as `applications[0].args`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def unknown_key(path: Path, key: object, allowed: Iterable[str]) -> Problem:
    names = sorted(allowed)
    close = difflib.get_close_matches(str(key), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(names)}"
    return Problem((*path, str(key)), f"unknown key; {hint}")


def validation_problems(
    error: ValidationError, model: type[Section], data: object, path: Path
) -> list[Problem]:
    """A pydantic error in the file's own paths; `data` is what was validated, `path` its place."""
    problems = []
    for detail in error.errors(include_url=False):
        where = (*path, *_path_in(data, detail))
        if detail["type"] == "extra_forbidden":
            allowed = _allowed_keys(model, detail["loc"][:-1])
            problems.append(unknown_key(where[:-1], where[-1], allowed))
        else:
            problems.append(Problem(where, _message(detail)))
    return problems


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "union_tag_not_found":
        return "the key 'name' is missing"
    if detail["type"] == "union_tag_invalid":
        context = detail.get("ctx", {})
        return f"name {context.get('tag')!r} is unknown; one of {context.get('expected_tags')}"
    found = "" if isinstance(detail["input"], (Mapping, list)) else f"{detail['input']!r}: "
    if detail["type"] == "model_type":
        return f"{found}expected a mapping of keys"
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{found}expected {expected}"


def _path_in(data: object, detail: ErrorDetails) -> Path:
    """The error's location without the union tags that pydantic puts between the data's keys."""
    path: list[str | int] = []
    location = detail["loc"]
    for index, part in enumerate(location):
        is_missing = detail["type"] == "missing" and index == len(location) - 1
        if isinstance(data, Mapping) and part not in data and not is_missing:
            continue
        path.append(part)
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, (list, tuple)) and isinstance(part, int):
            data = data[part] if part < len(data) else None
    return tuple(path)


def _sections(annotation: Any) -> list[type[Section]]:
    """All sections that an annotation can hold, however deep in its brackets."""
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]


def _allowed_keys(model: type[Section], location: Sequence[str | int]) -> set[str]:
    """The keys of the section at `location`, union tags included, of `model`."""
    found = [model]
    for part in location:
        tagged = [section for section in found if part in _tags(section)]
        below = [section.model_fields[part] for section in found if part in section.model_fields]
        if tagged:
            found = tagged
        elif below:
            found = _sections(below[0].annotation)
    return {key for section in found for key in section.model_fields}


def _tags(section: type[Section]) -> tuple[object, ...]:
    field = section.model_fields.get("name")
    return get_args(field.annotation) if field is not None else ()
