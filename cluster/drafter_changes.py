"""Drafters that are added, removed and disabled while the application runs. Pure.

One document of changes lies over the configuration. Counts are kept by drafters' names, so a name
that was once given keeps its meaning: an added drafter stays in the document when it is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from cluster.config import ClusterConfig, DrafterSection, Name, Section

MAX_ADDED = 256

Names = Annotated[tuple[Name, ...], Field(strict=False, max_length=4 * MAX_ADDED)]


@dataclass(frozen=True, slots=True)
class AddDrafter:
    section: DrafterSection


@dataclass(frozen=True, slots=True)
class RemoveDrafter:
    name: str


@dataclass(frozen=True, slots=True)
class EnableDrafter:
    """Or disable it."""

    name: str
    is_enabled: bool


DrafterChange = AddDrafter | RemoveDrafter | EnableDrafter


class DrafterChangeError(Exception):
    """The change makes no sense; `field` is that of the drafter's section, if it is about one."""

    def __init__(
        self,
        kind: Literal["unknown", "conflict", "invalid"],
        message: str,
        field: str | None = None,
    ) -> None:
        super().__init__(kind, message, field)  # all of them, so that it can be pickled
        self.kind = kind
        self.message = message
        self.field = field


class DrafterChanges(Section):
    """`version` counts the changes. What no longer fits the configuration is passed over."""

    version: Annotated[int, Field(ge=0)] = 0
    added: Annotated[tuple[DrafterSection, ...], Field(strict=False, max_length=MAX_ADDED)] = ()
    removed: Names = ()
    disabled: Names = ()

    def apply(self, config: ClusterConfig) -> ClusterConfig:
        """`config` with these drafters. Where both have a name, the configuration's is meant."""
        hosts = {None, *(host.name for host in config.hosts)}
        drafters = [each for each in self._known(config).values() if each.host in hosts]
        present = [each for each in drafters if each.name not in self.removed]
        return ClusterConfig.model_validate({**dict(config), "drafters": tuple(present)})

    def after(self, change: DrafterChange, config: ClusterConfig) -> DrafterChanges:
        """The next version; raises DrafterChangeError for what cannot be done."""
        if isinstance(change, AddDrafter):
            return self._with(change.section, config)
        name = change.name
        known = [drafter.name for drafter in self.apply(config).drafters]
        if name not in known:
            message = f"{name!r} is no drafter; there are: {', '.join(known) or 'none'}"
            raise DrafterChangeError("unknown", message)
        disabled = tuple(each for each in self.disabled if each != name)
        if isinstance(change, RemoveDrafter):
            return self._next(removed=(*self.removed, name), disabled=disabled)
        return self._next(disabled=disabled if change.is_enabled else (*disabled, name))

    def _with(self, section: DrafterSection, config: ClusterConfig) -> DrafterChanges:
        name, known = section.name, self._known(config).get(section.name)
        hosts = [host.name for host in config.hosts]
        if section.host is not None and section.host not in hosts:
            allowed = ", ".join(hosts) or "none"
            message = f"host: {section.host!r} is not among the configured hosts: {allowed}"
            raise DrafterChangeError("invalid", message, "host")
        if known is not None and name not in self.removed:
            raise DrafterChangeError("conflict", f"name: {name!r} is the name of a drafter", "name")
        if known is not None and known != section:
            message = f"name: {name!r} was another drafter's, by which its counts are kept"
            raise DrafterChangeError("conflict", message, "name")
        added = self.added if known is not None else (*self.added, section)
        try:
            after = self._next(
                added=added, removed=tuple(each for each in self.removed if each != name)
            )
            after.apply(config)
        except ValidationError as error:
            raise DrafterChangeError("invalid", f"there are too many drafters: {name!r}") from error
        return after

    def _known(self, config: ClusterConfig) -> Mapping[str, DrafterSection]:
        added = {each.name: each for each in self.added}
        configured = {each.name: each for each in config.drafters}
        return {**configured, **{n: s for n, s in added.items() if n not in configured}}

    def _next(self, **changed: object) -> DrafterChanges:
        content = {**dict(self), **changed, "version": self.version + 1}
        return DrafterChanges.model_validate(content)
