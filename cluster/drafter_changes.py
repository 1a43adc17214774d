"""Drafters that are added, removed and disabled while the application runs. Pure.

One document of changes lies over the configuration. Counts are kept by drafters' names, so a name
that was once given keeps its meaning: an added drafter stays in the document when it is removed.
Documents that went apart, as when a store forgot, are merged name by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """What no longer fits the configuration is passed over.

    `version` grows with each change: it is the change's time in us, if that is later than the last.
    `changed` has the version at which each name was last changed.
    """

    version: Annotated[int, Field(ge=0)] = 0
    added: Annotated[tuple[DrafterSection, ...], Field(strict=False, max_length=MAX_ADDED)] = ()
    removed: Names = ()
    disabled: Names = ()
    changed: Annotated[dict[Name, int], Field(max_length=4 * MAX_ADDED)] = Field(
        default_factory=dict
    )

    def apply(self, config: ClusterConfig) -> ClusterConfig:
        """`config` with these drafters. Where both have a name, the configuration's is meant."""
        hosts = {None, *(host.name for host in config.hosts)}
        drafters = [each for each in self._known(config).values() if each.host in hosts]
        present = [each for each in drafters if each.name not in self.removed]
        return ClusterConfig.model_validate({**dict(config), "drafters": tuple(present)})

    def after(
        self, change: DrafterChange, config: ClusterConfig, now_us: int = 0
    ) -> DrafterChanges:
        """The next version; raises DrafterChangeError for what cannot be done."""
        version = max(self.version + 1, now_us)
        if isinstance(change, AddDrafter):
            return self._with(change.section, config, version)
        name = change.name
        known = [drafter.name for drafter in self.apply(config).drafters]
        if name not in known:
            message = f"{name!r} is no drafter; there are: {', '.join(known) or 'none'}"
            raise DrafterChangeError("unknown", message)
        disabled = tuple(each for each in self.disabled if each != name)
        if isinstance(change, RemoveDrafter):
            removed = (*self.removed, name)
            return self._next(version, name, removed=removed, disabled=disabled)
        kept = disabled if change.is_enabled else (*disabled, name)
        return self._next(version, name, disabled=kept)

    def merged(self, other: DrafterChanges) -> DrafterChanges:
        """Of the two the one that knows of all the other does, else a later one that has both.

        Each name is as it was last said to be. Of more than MAX_ADDED drafters, the later
        document's stay.
        """
        last, first = (self, other) if self.version >= other.version else (other, self)
        winners = {
            name: first if first._changed_at(name) > last._changed_at(name) else last
            for name in (*last._names, *first._names)
        }
        added = {each.name: each for each in (*last.added, *first.added)}
        for document in (last, first):
            added |= {each.name: each for each in document.added if winners[each.name] is document}
        content: dict[str, object] = {
            "added": tuple(added.values())[:MAX_ADDED],
            "removed": tuple(name for name, each in winners.items() if name in each.removed),
            "disabled": tuple(name for name, each in winners.items() if name in each.disabled),
            "changed": {name: each._changed_at(name) for name, each in winners.items()},
        }
        both = DrafterChanges.model_validate({"version": last.version + 1, **content})
        return last if last._says(both) else both

    def _with(self, section: DrafterSection, config: ClusterConfig, version: int) -> DrafterChanges:
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
            removed = tuple(each for each in self.removed if each != name)
            after = self._next(version, name, added=added, removed=removed)
            after.apply(config)
        except ValidationError as error:
            raise DrafterChangeError("invalid", f"there are too many drafters: {name!r}") from error
        return after

    def _known(self, config: ClusterConfig) -> Mapping[str, DrafterSection]:
        added = {each.name: each for each in self.added}
        configured = {each.name: each for each in config.drafters}
        return {**configured, **{n: s for n, s in added.items() if n not in configured}}

    @property
    def _names(self) -> Iterator[str]:
        yield from (each.name for each in self.added)
        yield from (*self.removed, *self.disabled, *self.changed)

    def _changed_at(self, name: str) -> int:
        return self.changed.get(name, 0)

    def _says(self, other: DrafterChanges) -> bool:
        """Whether they are the same but for their order and version."""
        mine, theirs = ({each.name: each for each in one.added} for one in (self, other))
        named = all(
            set(getattr(self, key)) == set(getattr(other, key)) for key in ("removed", "disabled")
        )
        ours = {name: at for name, at in self.changed.items() if at}
        return named and mine == theirs and ours == {n: a for n, a in other.changed.items() if a}

    def _next(self, version: int, name: str, **changed: object) -> DrafterChanges:
        times = {**self.changed, name: version}
        content = {**dict(self), **changed, "version": version, "changed": times}
        return DrafterChanges.model_validate(content)
