"""Running counts of what each drafter did, for one sequence or for the whole engine."""

from __future__ import annotations

from dataclasses import replace

from engine.request import DrafterUse, SpeculationUse


class Usage:
    """Adds up rounds; `snapshot` freezes them."""

    def __init__(self) -> None:
        self.num_rounds = 0
        self.num_emitted_tokens = 0
        self._per_drafter: dict[str, DrafterUse] = {}

    def add(
        self, drafter: str | None, num_draft_tokens: int, num_accepted_tokens: int, num_emitted: int
    ) -> None:
        """Counts one round of one sequence; `drafter` None is plain decoding."""
        self.num_rounds += 1
        self.num_emitted_tokens += num_emitted
        if drafter is None:
            return
        use = self._per_drafter.get(drafter, DrafterUse())
        self._per_drafter[drafter] = replace(
            use,
            num_rounds=use.num_rounds + 1,
            num_draft_tokens=use.num_draft_tokens + num_draft_tokens,
            num_accepted_tokens=use.num_accepted_tokens + num_accepted_tokens,
        )

    def snapshot(self) -> SpeculationUse:
        return SpeculationUse(self.num_rounds, self.num_emitted_tokens, dict(self._per_drafter))
