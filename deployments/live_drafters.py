"""The drafters that a process has loaded, kept in step with what is wanted while it serves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from cluster.config import DrafterSection
from engine.config import DrafterConfig
from engine.drafters.drafter import Drafter

logger = logging.getLogger(__name__)

Build = Callable[[DrafterSection], Drafter]
Use = Callable[[Sequence[Drafter]], None]


class LiveDrafters:
    """`build` loads one, for seconds; `use` puts all that are loaded in place of those before.

    One thread calls `follow`; any may read `loading` and `refused`.
    """

    def __init__(self, drafters: Sequence[Drafter], build: Build, use: Use) -> None:
        self._drafters = {drafter.name: drafter for drafter in drafters}
        self._build = build
        self._use = use
        self.loading: frozenset[str] = frozenset()
        self.refused: Mapping[str, str] = {}

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset(self._drafters)

    def follow(self, sections: Sequence[DrafterSection]) -> bool:
        """First without those that are gone, then with each of the others as it is loaded.

        What could not be loaded before is tried again, and stays `refused` until it is. Gives
        whether all are loaded.
        """
        names = [section.name for section in sections]
        self._put({n: drafter for n, drafter in self._drafters.items() if n in names})
        missing = [section for section in sections if section.name not in self._drafters]
        self.refused = {n: why for n, why in self.refused.items() if n in names}
        self.loading = frozenset(section.name for section in missing) - self.refused.keys()
        for section in missing:
            try:
                drafter = self._build(section)
            except Exception as error:
                logger.exception("drafter %s cannot be loaded", section.name)
                reason = str(error) or type(error).__name__
                self.refused = {**self.refused, section.name: reason}
            else:
                self._put({**self._drafters, section.name: drafter})
                self.refused = {n: why for n, why in self.refused.items() if n != section.name}
            self.loading -= {section.name}
        return not self.refused

    def _put(self, drafters: dict[str, Drafter]) -> None:
        self._use(list(drafters.values()))
        self._drafters = drafters


def engine_config(section: DrafterSection) -> DrafterConfig:
    return DrafterConfig(**section.model_dump(exclude={"host"}))
