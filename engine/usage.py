"""Running counts of what each drafter did, for one sequence, a tenant, or the whole engine."""

from __future__ import annotations

from dataclasses import replace

from engine.request import DrafterUse, SpeculationUse

MAX_TENANTS = 32
"""Whose counts are kept apart: each is a label of several metrics."""

OTHER_TENANTS = "(other)"


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


class EngineUsage:
    """The whole engine's, by tenant too, and by the accepted tokens' places in their drafts."""

    def __init__(self) -> None:
        self.total = Usage()
        self._tenants: dict[str, Usage] = {}
        self._num_drafts_of: list[int] = []  # with this many accepted tokens

    def add(
        self,
        tenant: str,
        drafter: str | None,
        num_draft_tokens: int,
        num_accepted: int,
        num_kept: int,
    ) -> None:
        """Counts one round of one sequence, as `Usage.add`."""
        self.total.add(drafter, num_draft_tokens, num_accepted, num_kept)
        self._of(tenant).add(drafter, num_draft_tokens, num_accepted, num_kept)
        while len(self._num_drafts_of) <= num_accepted:
            self._num_drafts_of.append(0)
        self._num_drafts_of[num_accepted] += 1

    @property
    def per_tenant(self) -> dict[str, SpeculationUse]:
        """The first `MAX_TENANTS` that came, and all others together."""
        return {tenant: usage.snapshot() for tenant, usage in self._tenants.items()}

    @property
    def num_accepted_at(self) -> tuple[int, ...]:
        """How many drafts had their first token accepted, their second, and so on."""
        counts, total = [], 0
        for count in reversed(self._num_drafts_of[1:]):
            total += count
            counts.append(total)
        return tuple(reversed(counts))

    def _of(self, tenant: str) -> Usage:
        if tenant not in self._tenants and len(self._tenants) >= MAX_TENANTS:
            tenant = OTHER_TENANTS
        return self._tenants.setdefault(tenant, Usage())
