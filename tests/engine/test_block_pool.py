"""The block pool against a model of it, over random histories of many users."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.block_pool import BlockPool, chain_hash, salt_of

NUM_BLOCKS, BLOCK_SIZE = 6, 2


def hash_chain(tenant: str, tokens: list[int]) -> list[bytes]:
    hashes = [salt_of(tenant)]
    for start in range(0, len(tokens) // BLOCK_SIZE * BLOCK_SIZE, BLOCK_SIZE):
        hashes.append(chain_hash(hashes[-1], tokens[start : start + BLOCK_SIZE]))
    return hashes[1:]


HASHES = [hash_chain(tenant, tokens) for tenant in "ab" for tokens in ([1] * 8, [1] * 4 + [2] * 4)]


class PoolMachine(RuleBasedStateMachine):
    """`users` hold blocks, each one a table and the hashes that it stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS, BLOCK_SIZE)
        self.users: list[tuple[list[int], list[bytes]]] = []
        self.written: dict[int, bytes] = {}  # what was published in a block, until handed out
        self.cached: list[int] = []  # least recently used first

    @property
    def used(self) -> set[int]:
        return {block for table, _ in self.users for block in table}

    @rule(hashes=st.sampled_from(HASHES), num_blocks=st.integers(1, 4))
    def admit(self, hashes: list[bytes], num_blocks: int) -> None:
        """Shares what is published, and takes the rest, or gives all back."""
        wanted = hashes[:num_blocks]
        expected = 0
        while expected < num_blocks and wanted[expected] in self.written.values():
            expected += 1
        shared = self.pool.share(wanted)
        assert [self.written[block] for block in shared] == wanted[:expected]
        self.cached = [block for block in self.cached if block not in shared]
        self.users.append((shared, wanted))
        self.grow(len(self.users) - 1, num_blocks - len(shared))
        if len(shared) < num_blocks:
            self.leave(len(self.users) - 1)

    def grow(self, user: int, num_blocks: int) -> None:
        free = NUM_BLOCKS - len(self.used) - len(self.cached)
        assert self.pool.num_available == free + len(self.cached)
        taken = self.pool.allocate(num_blocks)
        if num_blocks > free + len(self.cached):
            assert taken is None
            return
        assert taken is not None
        assert len(set(taken)) == len(taken) == num_blocks
        assert not set(taken) & self.used
        num_evicted = max(0, num_blocks - free)
        evicted, self.cached = self.cached[:num_evicted], self.cached[num_evicted:]
        assert set(evicted) <= set(taken)
        assert not set(self.cached) & set(taken)
        for block in evicted:
            del self.written[block]
        self.users[user][0].extend(taken)

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        table, hashes = data.draw(st.sampled_from(self.users))
        for block, block_hash in zip(table, hashes, strict=False):
            self.pool.publish(block, block_hash)
            if block_hash not in self.written.values() and block not in self.written:
                self.written[block] = block_hash

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.integers(0, len(self.users) - 1)))

    def leave(self, user: int) -> None:
        table, _ = self.users.pop(user)
        self.pool.release(table)
        self.cached += [b for b in reversed(table) if b not in self.used and b in self.written]

    @invariant()
    def every_block_is_in_one_state(self) -> None:
        self.pool.check_integrity()
        assert self.pool.num_used == len(self.used)
        assert self.pool.num_available == NUM_BLOCKS - len(self.used)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40, derandomize=True)


def published(pool: BlockPool, hashes: list[bytes]) -> list[int]:
    """Blocks of a user who wrote and published `hashes` and has left."""
    table = pool.allocate(len(hashes))
    assert table is not None
    for block, block_hash in zip(table, hashes, strict=True):
        pool.publish(block, block_hash)
    pool.release(table)
    return table


@given(tokens=st.lists(st.integers(0, 2**40), max_size=12))
def test_tenants_share_no_hash(tokens: list[int]) -> None:
    assert not set(hash_chain("a", tokens)) & set(hash_chain("b", tokens))
    assert hash_chain("a", tokens) == hash_chain("a", list(tokens))


def test_tenants_share_no_block() -> None:
    pool = BlockPool(NUM_BLOCKS, BLOCK_SIZE)
    table = published(pool, hash_chain("a", [1, 2, 3, 4]))
    assert pool.share(hash_chain("b", [1, 2, 3, 4])) == []
    assert pool.share(hash_chain("a", [1, 2, 3, 4])) == table


@pytest.mark.parametrize("other", [[9, 2, 3, 4], [1, 9, 3, 4]])
def test_a_hash_stands_for_all_tokens_before_it(other: list[int]) -> None:
    assert not set(hash_chain("a", [1, 2, 3, 4])) & set(hash_chain("a", other))


def test_a_gap_ends_the_shared_run() -> None:
    pool = BlockPool(NUM_BLOCKS, BLOCK_SIZE)
    hashes = hash_chain("a", [1, 2, 3, 4, 5, 6])
    table = pool.allocate(3)
    assert table is not None
    pool.publish(table[0], hashes[0])
    pool.publish(table[2], hashes[2])
    assert pool.share(hashes) == table[:1]


def test_nothing_is_taken_when_there_are_not_enough_blocks() -> None:
    pool = BlockPool(3, BLOCK_SIZE)
    assert pool.allocate(4) is None
    assert pool.num_available == 3
    assert pool.allocate(3) is not None
    assert pool.allocate(1) is None
    assert pool.allocate(0) == []


def test_the_least_recently_used_block_goes_first_and_tails_before_heads() -> None:
    pool = BlockPool(4, BLOCK_SIZE)
    old, new = (hash_chain(tenant, [1, 2, 3, 4]) for tenant in "ab")
    old_table, new_table = published(pool, old), published(pool, new)
    assert pool.allocate(1) == [old_table[1]]
    pool.release(pool.share(old))  # used again: now the youngest
    assert pool.allocate(1) == [new_table[1]]
    assert pool.allocate(1) == [new_table[0]]
    assert pool.share(old) == [old_table[0]]


def test_a_block_in_use_is_never_evicted_though_its_publisher_left() -> None:
    pool = BlockPool(2, BLOCK_SIZE)
    hashes = hash_chain("a", [1, 2])
    (block,) = published(pool, hashes)
    assert pool.share(hashes) == pool.share(hashes) == [block]
    pool.release([block])
    assert pool.allocate(2) is None
    assert pool.allocate(1) != [block]


def test_the_first_publisher_of_a_hash_wins() -> None:
    pool = BlockPool(NUM_BLOCKS, BLOCK_SIZE)
    (block_hash,) = hash_chain("a", [1, 2])
    first, second = pool.allocate(1), pool.allocate(1)
    assert first is not None
    assert second is not None
    pool.publish(first[0], block_hash)
    pool.publish(second[0], block_hash)
    pool.release(second)  # not findable: worthless at once
    assert pool.share([block_hash]) == first
    pool.check_integrity()


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)])
def test_blocks_are_counted_in_whole_ones(num_tokens: int, num_blocks: int) -> None:
    assert BlockPool(NUM_BLOCKS, BLOCK_SIZE).blocks_for(num_tokens) == num_blocks
