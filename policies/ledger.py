"""Decisions that wait for their outcomes: a ring of bounded size, addressed by decision id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from policies.arms import Ints
from policies.selector import Outcome


class Ledger:
    """Columns of named arrays, one slot a decision; the oldest is overwritten.

    `columns` maps names to (values per slot, type). Ids rise by one, so that id modulo size is the
    slot; what a slot held before is recognised by its id and table version and passed over.
    """

    def __init__(self, size: int, columns: Mapping[str, tuple[int, DTypeLike]]) -> None:
        self._size = size
        self._next_id = 0
        self._ids = np.full(size, -1, np.int64)
        self._versions = np.zeros(size, np.int64)
        self._columns: dict[str, NDArray[Any]] = {
            name: np.zeros((size, width), dtype) for name, (width, dtype) in columns.items()
        }

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self._columns[column]  # [size, width]

    def open(self, num_decisions: int, version: int) -> tuple[Ints, Ints]:
        """Ids and slots of new decisions; the caller fills the columns at the slots."""
        ids = np.arange(self._next_id, self._next_id + num_decisions)
        self._next_id += num_decisions
        slots = ids % self._size
        self._ids[slots] = ids
        self._versions[slots] = version
        return ids, slots

    def find(self, outcomes: Sequence[Outcome]) -> Ints:
        """The slot of each outcome's decision, -1 where it is unknown or overwritten."""
        ids = np.array([outcome.decision_id for outcome in outcomes], np.int64)
        versions = np.array([outcome.table_version for outcome in outcomes], np.int64)
        slots = ids % self._size
        known = (ids >= 0) & (self._ids[slots] == ids) & (self._versions[slots] == versions)
        return np.where(known, slots, -1)

    def close(self, slots: Ints) -> None:
        """Nothing more is expected of these."""
        self._ids[slots] = -1

    def close_where(self, column: str, value: int) -> None:
        """Closes every decision whose `column` is `value`."""
        self._ids[self._columns[column][:, 0] == value] = -1

    def clear(self) -> None:
        self._ids[:] = -1
