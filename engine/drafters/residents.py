"""The sequences that a drafter keeps, and the blocks of its KV cache that they hold.

Who does not fit makes others give up their blocks, the least recently used first; what is known of
those otherwise stays.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from engine.block_pool import BlockPool


class Resident(Protocol):
    """What a drafter remembers of a sequence; without its blocks nothing of it is cached."""

    block_table: list[int]

    def drop_cache(self) -> None: ...


T = TypeVar("T", bound=Resident)


class Residents(Generic[T]):
    """See the module."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self._pool = BlockPool(num_blocks, block_size)
        self._kept: OrderedDict[str, T] = OrderedDict()

    def __getitem__(self, sequence_id: str) -> T:
        return self._kept[sequence_id]

    def find(self, sequence_id: str) -> T | None:
        return self._kept.get(sequence_id)

    def use(self, sequence_id: str, make: Callable[[], T]) -> T:
        """The sequence, made if it is new, as the most recently used."""
        if sequence_id not in self._kept:
            self._kept[sequence_id] = make()
        self._kept.move_to_end(sequence_id)
        return self._kept[sequence_id]

    def make_room(self, sequence_id: str, num_tokens: int, busy: set[str] | None) -> bool:
        """Blocks for `num_tokens` in all, taken from others that are not `busy` if need be.

        None: from nobody.
        """
        resident = self._kept[sequence_id]
        missing = max(0, self._pool.blocks_for(num_tokens) - len(resident.block_table))
        while (taken := self._pool.allocate(missing)) is None:
            if busy is None or not self._evict_one(busy | {sequence_id}):
                return False
        resident.block_table += taken
        return True

    def forget(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            resident = self._kept.pop(sequence_id, None)
            if resident is not None:
                self._pool.release(resident.block_table)

    def _evict_one(self, busy: set[str]) -> bool:
        for sequence_id, resident in self._kept.items():
            if sequence_id not in busy and resident.block_table:
                self._pool.release(resident.block_table)
                resident.block_table = []
                resident.drop_cache()
                return True
        return False
