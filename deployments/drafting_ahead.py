"""What a host's drafters may draft in their spare time, until targets have verified the last."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.drafters.drafter import Drafter, DraftRequest, Forerunner

logger = logging.getLogger(__name__)


class DraftingAhead:
    """By drafter and sequence; nothing at all unless it `is_on`."""

    def __init__(self, is_on: bool) -> None:
        self._is_on = is_on
        self._wanted: dict[str, dict[str, DraftRequest]] = {}

    def __len__(self) -> int:
        """Drafters that have something to draft."""
        return len(self._wanted)

    def note(self, drafter: Drafter, drafted: Sequence[DraftRequest]) -> None:
        """Worth having: what follows if all is accepted, and the target's own token guessed."""
        if self._is_on and isinstance(drafter, Forerunner):
            wanted = self._wanted.setdefault(drafter.name, {})
            for request in drafted:
                length = 2 * request.draft_length + 1
                wanted[request.sequence_id] = replace(request, draft_length=length)

    def go_on(self, drafters: Mapping[str, Drafter]) -> tuple[str, list[str]]:
        """The next drafter draws one token more of each of its sequences, in one go.

        Gives its name, and the sequences that it may have spoilt if it failed.
        """
        name = next(iter(self._wanted), "")
        requests = self._wanted.pop(name, {})
        if not requests:
            return name, []
        drafter = drafters[name]
        assert isinstance(drafter, Forerunner), "others are not noted"
        try:
            if drafter.draft_ahead(list(requests.values())):
                self._wanted[name] = requests  # behind the others
        except Exception:
            logger.exception("drafter %s failed to draft ahead", name)
            return name, list(requests)
        return name, []

    def forget(self, sequence_ids: Sequence[str]) -> None:
        for requests in self._wanted.values():
            for sequence_id in sequence_ids:
                requests.pop(sequence_id, None)

    def clear(self) -> None:
        self._wanted.clear()
