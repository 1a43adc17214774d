"""Which row of a learner's state a sequence uses: its own, its tenant's, or everyone's.

Rows of tenants and of all can be shared: `take` gives what was added here, `use` puts in its place
what everybody has added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from policies.arms import Floats, Ints
from policies.selector import Context

Scope = Literal["request", "tenant", "global"]
SCOPES: tuple[Scope, ...] = ("request", "tenant", "global")


class Rows:
    """A growing array of sums, one row per request, per tenant, or one for all.

    Freed rows are used again. A new row holds what `use` gave for it last, at first zeros.
    """

    def __init__(self, scope: Scope, num_sums: int, num_arms: int) -> None:
        if scope not in SCOPES:
            raise ValueError(f"scope: {scope!r} is not allowed; expected one of {SCOPES}")
        self.scope = scope
        self.sums: Floats = np.zeros((1, num_sums, num_arms))
        self._known = self.sums.copy()  # all but what was added since the last `take`
        self._merged: Mapping[str, Floats] = {}
        self._start: Floats = np.zeros((num_sums, num_arms))
        self._rows: dict[str, int] = {}
        self._free: list[int] = []

    @property
    def keys(self) -> dict[str, int]:
        """Row by request id, tenant or (for all) the empty string."""
        return dict(self._rows)

    def of(self, contexts: Sequence[Context]) -> Ints:
        return np.array([self.row(self._key(context)) for context in contexts], np.int64)

    def row(self, key: str) -> int:
        """The row of `key`, made if it is new."""
        row = self._rows.get(key)
        if row is None:
            row = self._free.pop() if self._free else len(self._rows)
            if row == len(self.sums):
                self.sums = np.concatenate([self.sums, np.zeros_like(self.sums)])
                self._known = np.concatenate([self._known, np.zeros_like(self._known)])
            self.sums[row] = self._known[row] = self._merged.get(key, self._start)
            self._rows[key] = row
        return row

    @property
    def added(self) -> Floats:
        """What was added since the last `take`, in the shape of `sums`."""
        return self.sums - self._known

    def take(self) -> dict[str, Floats]:
        """By key, what was added since the last time, if anything was; nothing of requests."""
        if self.scope == "request":
            return {}
        added = self.added
        has_more = np.asarray(added.any(axis=(1, 2)))
        self._known[has_more] = self.sums[has_more]
        return {key: added[row] for key, row in self._rows.items() if has_more[row]}

    def use(self, merged: Mapping[str, Floats], start: Floats) -> None:
        """Puts `merged`, and `start` for other keys, in place of all but what was added since
        the last `take`."""
        if self.scope == "request":
            return
        for key, row in self._rows.items():
            added = self.sums[row] - self._known[row]
            self._known[row] = merged.get(key, start)
            self.sums[row] = self._known[row] + added
        self._merged, self._start = merged, start

    def replace(self, sums: Floats, added: Floats) -> None:
        """Other sums for the same keys, perhaps of other arms; `added` of them since `take`."""
        self.sums, self._known = sums, sums - added
        self._merged, self._start = {}, np.zeros(sums.shape[1:])

    def free(self, sequence_id: str) -> int | None:
        """Drops a request's row and says which it was; what is shared stays."""
        row = self._rows.pop(sequence_id, None) if self.scope == "request" else None
        if row is not None:
            self._free.append(row)
        return row

    def _key(self, context: Context) -> str:
        match self.scope:
            case "request":
                return context.sequence_id
            case "tenant":
                return context.tenant
            case _:
                return ""


def turns(rows: Ints) -> Ints:
    """How many earlier entries of `rows` have the same value, for each entry."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(rows)), 0))
    result = np.empty_like(rows)
    result[order] = np.arange(len(rows)) - first
    return result
