"""What to fold: closed epochs into each tenant's past, and writers that have fallen silent. Pure.

Any number of processes may do this at once: a fold that another has done does nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

from cluster.statistics.keys import PAST_UNIT, Table
from cluster.statistics.store import MAX_CELLS, Fold, Lifetimes, TableState

MAX_WRITERS = 100


class Janitor:
    """A writer is silent that stood at one sequence number for `silence_s` of unbroken watching.

    `forget` starts the watch anew; it is called whenever the store could not be reached, so that
    one that was rolled back has been repaired long before anybody's totals are let go of.
    """

    def __init__(self, lifetimes: Lifetimes, half_life_s: float, silence_s: float = 900.0) -> None:
        self._lifetimes = lifetimes
        self._half_life_s = half_life_s
        self._silence_s = silence_s
        self._seen: dict[tuple[Table, str], tuple[int, float]] = {}

    def forget(self) -> None:
        self._seen.clear()

    def next_fold(
        self, states: Mapping[Table, TableState], now_us: int, clock_s: float
    ) -> Fold | None:
        """One small piece of work, None if there is none. `clock_s` is monotonic."""
        self._watch(states, clock_s)
        folds = itertools.chain(self._closed(states, now_us), self._silent(states, clock_s))
        return next(folds, None)

    def _closed(self, states: Mapping[Table, TableState], now_us: int) -> Iterator[Fold]:
        is_closed = self._lifetimes.is_closed
        closed = sorted(table for table in states if is_closed(table.epoch, now_us))
        for tenant, group in itertools.groupby(closed, key=lambda table: table.tenant):
            tables = list(group)
            target = Table(tenant, max(table.epoch for table in tables), "past")
            for source in tables:
                if source != target:
                    yield self._fold(source, target, states[source])
                elif not states[source].cells:
                    yield Fold(source, is_last=True)

    def _fold(self, source: Table, target: Table, state: TableState) -> Fold:
        age_s = target.epoch - source.epoch
        unit = PAST_UNIT if source.kind == "live" else 1
        cells = tuple(itertools.islice(state.cells, MAX_CELLS))
        writers = _unfolded(state)
        return Fold(
            source,
            target,
            unit * math.exp2(-age_s / self._half_life_s),
            cells,
            dict(itertools.islice(writers.items(), MAX_WRITERS)),
            len(cells) == len(state.cells) and len(writers) <= MAX_WRITERS,
        )

    def _watch(self, states: Mapping[Table, TableState], clock_s: float) -> None:
        seen, self._seen = self._seen, {}
        for table, state in states.items():
            for writer, sequence in _unfolded(state).items():
                before, since_s = seen.get((table, writer), (sequence, clock_s))
                self._seen[table, writer] = sequence, since_s if before == sequence else clock_s

    def _silent(self, states: Mapping[Table, TableState], clock_s: float) -> Iterator[Fold]:
        latest_s = clock_s - self._silence_s
        for table, state in states.items():
            writers = _unfolded(state).items()
            silent = {name: n for name, n in writers if self._seen[table, name][1] <= latest_s}
            if silent:
                yield Fold(table, writers=dict(itertools.islice(silent.items(), MAX_WRITERS)))


def _unfolded(state: TableState) -> dict[str, int]:
    return {name: each.sequence for name, each in state.writers.items() if not each.is_folded}
