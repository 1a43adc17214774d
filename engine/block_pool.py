"""Who owns which KV block: free list, reference counts, prefix cache. Accounting only, no tensors.

A block holds `block_size` consecutive positions. A full block of verified tokens may be published
under its chained hash; when its last user leaves it stays, in LRU order, until the room is needed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np


def chain_hash(previous: bytes, tokens: Sequence[int]) -> bytes:
    """SHA-256 of a block's tokens and of everything before it; the chain starts with a salt."""
    return hashlib.sha256(previous + np.asarray(tokens, dtype="<i8").tobytes()).digest()


def salt_of(tenant: str) -> bytes:
    """First link of a tenant's chains: tenants never share a block, nor learn of another's."""
    return hashlib.sha256(b"hedgerow/tenant/" + tenant.encode()).digest()


class BlockPool:
    """Hands out `num_blocks` blocks by number.

    Every block is in exactly one state: free (contents worthless), cached (published, unused, LRU)
    or used (reference count >= 1, published or not).
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks - 1, -1, -1))
        self._num_users: dict[int, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` could hand out now, evicting cached ones."""
        return len(self._free) + len(self._cached)

    @property
    def num_used(self) -> int:
        return len(self._num_users)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def allocate(self, num_blocks: int) -> list[int] | None:
        """`num_blocks` private blocks, or None (and nothing taken) if there are not enough."""
        if num_blocks > self.num_available:
            return None
        blocks = [self._free.pop() if self._free else self._evict() for _ in range(num_blocks)]
        self._num_users.update(dict.fromkeys(blocks, 1))
        return blocks

    def share(self, hashes: Iterable[bytes]) -> list[int]:
        """Takes a reference on the longest published run of `hashes`; returns its blocks."""
        blocks = []
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            self._cached.pop(block, None)
            self._num_users[block] = self._num_users.get(block, 0) + 1
            blocks.append(block)
        return blocks

    def publish(self, block: int, block_hash: bytes) -> None:
        """Lets others find `block`, which is full and verified; the first publisher wins."""
        assert block in self._num_users, "only a used block can be published"
        if block_hash not in self._block_of and block not in self._hash_of:
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash

    def release(self, blocks: Sequence[int]) -> None:
        """Gives up one reference on each block; the tail of a sequence is evicted first."""
        for block in reversed(blocks):
            self._num_users[block] -= 1
            if self._num_users[block]:
                continue
            del self._num_users[block]
            if block in self._hash_of:
                self._cached[block] = None
            else:
                self._free.append(block)

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        del self._block_of[self._hash_of.pop(block)]
        return block

    def check_integrity(self) -> None:
        """Asserts that every block is in exactly one state and that the hash maps agree."""
        states = [*self._free, *self._cached, *self._num_users]
        assert sorted(states) == list(range(self.num_blocks)), "a block is lost or doubled"
        assert all(count > 0 for count in self._num_users.values()), "a used block without user"
        assert {b: h for h, b in self._block_of.items()} == self._hash_of, "hash maps disagree"
        assert set(self._cached) <= set(self._hash_of), "a cached block is not published"
        assert not set(self._free) & set(self._hash_of), "a free block is published"
