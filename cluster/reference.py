"""The page of all configuration keys, made from the schema that checks them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cluster.config import ClusterConfig, Section
from cluster.settings import DEPLOYMENT_SETTINGS

HEAD = """\
# Configuration

Written by `hedgerow reference` from `cluster/config.py` and `cluster/settings.py`; a test compares.
`ray_config.yaml` is a Ray Serve config file: what Ray itself reads is in Ray's documentation, and
what is ours is here. `hedgerow check ray_config.yaml` names every key that is not there and every
value that is out of range. Environment: `REDIS_URL` (statistics), `HEDGEROW_TENANTS_REDIS_URL`
(tenants, limits, usage; without it that of the statistics), `HEDGEROW_STATE` (data of the private
Redis), `HEDGEROW_CACHE` (converted models),
`HEDGEROW_TRANSPORT_SECRET` (between targets and hosts).
"""

_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_TYPES = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}


def configuration_page() -> str:
    """In Markdown."""
    lines = [HEAD, "## `applications[0].args`: a change restarts the application", ""]
    lines.extend(_part(ClusterConfig))
    for deployment, model in DEPLOYMENT_SETTINGS.items():
        if model.model_fields:
            lines.extend([f"## `user_config` of `{deployment}`: applied live", "", *_part(model)])
    return "\n".join(lines)


def _part(model: type[Section]) -> Iterator[str]:
    """Each kind of section where it may stand first."""
    seen: set[type[Section]] = set()
    for path, section in _sections_of("", model):
        if section not in seen:
            yield from _section(path, section)
        seen.add(section)


def _sections_of(path: str, model: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """`model`, and below it all that its fields can hold, by path."""
    yield path, model
    for key, field in model.model_fields.items():
        where = f"{path}.{key}".strip(".")
        for below in _held(field.annotation):
            tag = below.model_fields.get("name")
            kind = get_args(tag.annotation) if tag else ()
            yield from _sections_of(f"{where}: {kind[0]}" if kind else where, below)


def _held(annotation: Any) -> list[type[Section]]:
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _held(argument)]


def _section(name: str, model: type[Section]) -> Iterator[str]:
    if name:
        yield f"### `{name}`\n"
    yield inspect.cleandoc(model.__doc__ or "") + "\n"
    own = {key: field for key, field in model.model_fields.items() if not _is_tag(key, field)}
    if own:
        yield from ("| key | value | default |", "|---|---|---|")
        for key, field in own.items():
            yield f"| `{key}` | {_value(field)} | {_default(field)} |"
        yield ""


def _is_tag(key: str, field: FieldInfo) -> bool:
    return key == "name" and get_origin(field.annotation) is Literal


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "none"
    if field.default is PydanticUndefined:
        return "needed"
    if isinstance(field.default, Section):
        name = field.default.model_dump().get("name")
        return f"`name: {name}`" if name else "those below"
    if field.default is None or field.default == ():
        return "none"
    shown = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{shown}`"


def _value(field: FieldInfo) -> str:
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, limits: Any = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        first, *own = arguments
        own = [each for one in own for each in _limits_of(one)]
        return _words(first, [*own, *limits])
    if origin in (Union, types.UnionType):
        kept = [each for each in arguments if each is not type(None)]
        if all(_held(each) for each in kept):
            return "one of those below" if len(kept) > 1 else _words(kept[0], limits)
        return " or ".join(_words(each, limits) for each in kept)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin is tuple:
        return f"list of: {_words(arguments[0])}" + _range(limits, "entries")
    if origin in (dict, Mapping):
        return f"by name: {_words(arguments[1])}" + _range(limits, "entries")
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return "keys below"
    return _TYPES[annotation] + _range(limits, "letter") + _pattern(limits)


def _limits_of(metadata: Any) -> list[Any]:
    """A Field's own limits, and those of what is none."""
    if isinstance(metadata, BeforeValidator):
        return []
    return list(metadata.metadata) if isinstance(metadata, FieldInfo) else [metadata]


def _range(limits: Any, counted: str) -> str:
    low = high = ""
    for limit in limits:
        match limit:
            case Ge(ge=value):
                low = f"from {value:,.12g}"
            case Gt(gt=value):
                low = f"above {value:,.12g}"
            case Le(le=value):
                high = f"to {value:,.12g}"
            case Lt(lt=value):
                high = f"below {value:,.12g}"
            case MinLen(min_length=value):
                low = f"at least {value} {counted}"
            case MaxLen(max_length=value):
                high = f"at most {value} {counted}"
    words = " ".join(filter(None, (low, high)))
    return f", {words}" if words else ""


def _pattern(limits: Any) -> str:
    for limit in limits:
        pattern: str | None = getattr(limit, "pattern", None)
        if pattern == _NAME:
            return ", a name"
        if pattern is not None:
            return " like `" + pattern.replace("|", "\\|") + "`"
    return ""
