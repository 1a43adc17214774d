"""The drafters of a target, as the configuration and the changes to it have them.

New ones are loaded on the thread that brings the changes, while the engine goes on; between two
rounds it gets them, and the selectors their arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cluster.config import ClusterConfig, DrafterSection
from cluster.drafter_changes import DrafterChanges
from deployments.live_drafters import Build, LiveDrafters, Use
from deployments.target_counters import DrafterNote
from engine.drafters.drafter import Drafter


class Elsewhere(Protocol):
    """Drafters on hosts; see Hosts."""

    def drafter(self, section: DrafterSection) -> Drafter: ...

    def note_of(self, section: DrafterSection) -> DrafterNote | None: ...


class TargetDrafters:
    """`build` loads one for this process; `use` hands all that are loaded to the engine, which it
    does on the engine's thread."""

    def __init__(self, config: ClusterConfig, hosts: Elsewhere, build: Build, use: Use) -> None:
        self._start = config
        self._hosts = hosts
        self._build_here = build
        self.config = config
        self.disabled: tuple[str, ...] = ()
        self.first = [self._build(section) for section in config.drafters]
        self._live = LiveDrafters(self.first, self._build, use)

    @property
    def names(self) -> list[str]:
        return [section.name for section in self.config.drafters]

    def follow(self, changes: DrafterChanges) -> bool:
        """Returns when all are loaded that can be: whether that is all of them."""
        self.config, self.disabled = changes.apply(self._start), changes.disabled
        return self._live.follow(self.config.drafters)

    @property
    def notes(self) -> Mapping[str, DrafterNote]:
        """From any thread."""
        found = {name: DrafterNote("loading") for name in self._live.loading}
        found |= {name: DrafterNote("failed", why) for name, why in self._live.refused.items()}
        for section in self.config.drafters:
            note = self._hosts.note_of(section) if section.host is not None else None
            if note is not None:
                found[section.name] = note
        return found

    def _build(self, section: DrafterSection) -> Drafter:
        if section.host is None:
            return self._build_here(section)
        return self._hosts.drafter(section)
