"""What this process knows of the store: every table as last read, plus its own merges. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.store import Batch, Reading, Receipt, TableState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is known of counts at one moment; its mappings do not change.

    `unacknowledged` are own counts by tenant that the store may not have. `epoch` is the present
    one by the store's clock, None before it was first reached.
    """

    epoch: int | None = None
    tables: Mapping[Table, Mapping[str, int]] = field(default_factory=dict)
    unacknowledged: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def tenants(self) -> list[str]:
        return sorted({table.tenant for table in self.tables} | set(self.unacknowledged))

    def counts(self, tenant: str, half_life_s: float) -> dict[str, float]:
        """A tenant's cells, each epoch decayed by its age."""
        sums: dict[str, float] = {
            k: float(n) for k, n in self.unacknowledged.get(tenant, {}).items()
        }
        for table, cells in self.tables.items():
            if table.tenant == tenant:
                weight = worth(table, self.epoch, half_life_s)
                for name, count in cells.items():
                    sums[name] = sums.get(name, 0.0) + weight * count
        return sums


def worth(table: Table, epoch: int | None, half_life_s: float) -> float:
    """What one count of a table is worth in `epoch`; future tables count in full."""
    age_s = max(0, (table.epoch if epoch is None else epoch) - table.epoch)
    return math.exp2(-age_s / half_life_s) / (PAST_UNIT if table.kind == "past" else 1)


class Replica:
    """`num_histories_lost` counts past tables that vanished without a newer one."""

    def __init__(self) -> None:
        self.states: dict[Table, TableState] = {}
        self.num_histories_lost = 0
        self._known: dict[Table, int] = {}

    @property
    def known(self) -> Mapping[Table, int]:
        """The versions of the states."""
        return self._known

    def update(self, reading: Reading) -> None:
        for table in [table for table in self.states if table not in reading.versions]:
            del self.states[table]
            self._known.pop(table, None)
            tenants = {other.tenant for other in reading.versions if other.kind == "past"}
            self.num_histories_lost += table.kind == "past" and table.tenant not in tenants
        for table, state in reading.tables.items():
            self.states[table] = state
            self._known[table] = reading.versions[table]

    def merged(self, batch: Batch, receipt: Receipt, changes: Mapping[str, int] | None) -> None:
        """Adds own counts; where others have changed nothing, the table need not be read again."""
        if changes is None:
            self._known.pop(batch.table, None)
            return
        state = self.states.get(batch.table, TableState())
        cells = dict(state.cells)
        for name, change in changes.items():
            cells[name] = cells.get(name, 0) + change
        self.states[batch.table] = TableState(cells, state.writers)
        if receipt.version_before == self._known.get(batch.table, 0):
            self._known[batch.table] = receipt.version_after
