"""Who computes what in the next forward: continuous batching, chunked prefill, preemption.

Every running sequence gets its next token each round; prefill chunks share what the token budget
leaves; new sequences start in the order of the fair queue, when all their blocks fit. Where room is
short, whoever is most over its share gives up the blocks of its youngest sequence, which is
computed again later: for a running sequence that needs one more, and for a tenant that would still
be within its own share.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from engine.block_pool import BlockPool
from engine.fair_queue import OUTPUT_TOKEN_COST, PROMPT_TOKEN_COST, FairQueue
from engine.fair_share import (
    blocks_held,
    divide,
    most_over_share,
    over_share,
    places_held,
    share_of,
)
from engine.sequence import Sequence
from policies.selector import PLAIN, Decision


@dataclass(slots=True)
class Step:
    """One sequence's part of a forward: its next `num_new` verified tokens, then `draft`.

    `decision` is the selector's; the draft may have come out shorter, or not at all. The drafter
    itself stopped `num_given_up` tokens before the length that it was asked for. A step that
    `waits` for its draft is left out of the forward.
    """

    sequence: Sequence
    num_new: int
    decision: Decision = PLAIN
    draft: tuple[int, ...] = ()
    num_given_up: int = 0
    waits: bool = False

    @property
    def drafter(self) -> str | None:
        return self.decision.drafter if self.draft else None

    @property
    def decodes(self) -> bool:
        """Whether it continues an answer, so that a draft may follow."""
        return self.num_new == 1 == self.sequence.num_pending

    @property
    def emits(self) -> bool:
        """Whether the forward reaches the sequence's end, so that a token follows."""
        return self.num_new == self.sequence.num_pending


class Scheduler:
    """Holds the waiting and the running sequences and their blocks."""

    def __init__(self, pool: BlockPool, max_num_sequences: int, max_batch_tokens: int) -> None:
        self._pool = pool
        self._max_num_sequences = max_num_sequences
        self._max_batch_tokens = max_batch_tokens
        in_a_step = min(max_batch_tokens, pool.num_blocks * pool.block_size)
        self.waiting = FairQueue(max_lag=OUTPUT_TOKEN_COST * in_a_step)
        self.running: list[Sequence] = []  # oldest first
        self._live: dict[str, Sequence] = {}
        self.num_preemptions = 0
        self._held_back = False  # some prompts, in the last step

    def add(self, sequence: Sequence) -> None:
        self._live[sequence.id] = sequence
        self.waiting.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forgets a sequence and frees its blocks, wherever it is."""
        del self._live[sequence.id]
        self.waiting.leave(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
            self._free_blocks(sequence)

    def charge(self, sequence: Sequence, num_tokens: int) -> None:
        """Verified tokens that the sequence's tenant got."""
        self.waiting.charge(sequence, OUTPUT_TOKEN_COST * num_tokens)

    def plan(self) -> list[Step]:
        """The next forward: decoding first, then prefill, divided among tenants."""
        for sequence in list(self.running):
            if sequence in self.running:
                self._make_room(sequence)
        while self._may_admit() and self._admit():
            pass
        steps = [Step(sequence, 1) for sequence in self.running if sequence.num_pending == 1]
        budget = self._max_batch_tokens - len(steps)
        return steps + [Step(*chunk) for chunk in self._chunks(budget)]

    def room_for_draft(self, sequence: Sequence, num_draft_tokens: int) -> int:
        """How many draft tokens fit without taking a block from anyone; takes their blocks."""
        missing = self._missing_blocks(sequence, len(sequence.tokens) + num_draft_tokens)
        if missing:
            missing = min(missing, self._pool.num_available, self._blocks_left(sequence))
        taken = self._pool.allocate(missing)
        assert taken is not None, "no more was asked than is available"
        sequence.block_table += taken
        room = len(sequence.block_table) * self._pool.block_size - len(sequence.tokens)
        return min(num_draft_tokens, room)

    def trim(self, sequence: Sequence) -> None:
        """Gives back the blocks that only a rejected draft needed."""
        num_blocks = self._pool.blocks_for(len(sequence.tokens))
        self._pool.release(sequence.block_table[num_blocks:])
        del sequence.block_table[num_blocks:]

    def publish(self, sequence: Sequence) -> None:
        """Shares the sequence's full blocks of verified tokens with its tenant."""
        num_full = sequence.num_computed // self._pool.block_size
        hashes = sequence.hashes(num_full, self._pool.block_size)
        for block, block_hash in zip(sequence.block_table, hashes, strict=False):
            self._pool.publish(block, block_hash)

    def _missing_blocks(self, sequence: Sequence, num_tokens: int) -> int:
        return max(0, self._pool.blocks_for(num_tokens) - len(sequence.block_table))

    def _make_room(self, sequence: Sequence) -> None:
        """Blocks for all verified tokens of a running sequence; may preempt it, or another."""
        missing = self._missing_blocks(sequence, len(sequence.tokens))
        while missing and self._blocks_left(sequence) < missing:
            victim = self._last_of(sequence.request.tenant)
            self._preempt(victim)
            if victim is sequence:
                return
        while (taken := self._pool.allocate(missing)) is None:
            victim = self._last_of(most_over_share(self._num_blocks_held(), self.waiting.weights))
            self._preempt(victim)
            if victim is sequence:
                return
        sequence.block_table += taken

    def _prefilling(self) -> list[Sequence]:
        return [sequence for sequence in self.running if sequence.num_pending > 1]

    def _chunks(self, budget: int) -> list[tuple[Sequence, int]]:
        """Of every tenant's prefill its share of the budget, and what others leave of theirs."""
        prefilling = self._prefilling_now()
        pending: dict[str, int] = defaultdict(int)
        for sequence in prefilling:
            pending[sequence.request.tenant] += sequence.num_pending
        shares = divide(budget, pending, self.waiting.weights)
        chunks = []
        for sequence in prefilling:
            size = min(sequence.num_pending, shares[sequence.request.tenant])
            shares[sequence.request.tenant] -= size
            chunks.append((sequence, size))
        return [(sequence, size) for sequence, size in chunks if size]

    def _prefilling_now(self) -> list[Sequence]:
        """All, but for those that would lengthen the step in which another tenant's prompt is.

        Those are of tenants that run more than their share, and wait for one step in two at most.
        """
        prefilling, weights = self._prefilling(), self.waiting.weights
        if len(weights) == 1 or not prefilling:
            self._held_back = False
            return prefilling
        is_within = {
            tenant: held <= share_of(tenant, weights, len(self.running))
            for tenant, held in places_held(self.running).items()
        }
        within = [sequence for sequence in prefilling if is_within[sequence.request.tenant]]
        self._held_back = 0 < len(within) < len(prefilling) and not self._held_back
        return within if self._held_back else prefilling

    def _may_admit(self) -> bool:
        """Whether tokens are left for a newcomer, or its tenant has a share of them."""
        if sum(sequence.num_pending for sequence in self.running) < self._max_batch_tokens:
            return True
        tenants = {sequence.request.tenant for sequence in self._prefilling()}
        return self.waiting.next_tenant not in (None, *tenants)

    def _admit(self) -> bool:
        """Starts who is next, if there is room for all of its tokens.

        A tenant without room in its own quota is passed over.
        """
        for sequence in self.waiting.heads(self._waits_for_leader):
            num_sharable = (len(sequence.tokens) - 1) // self._pool.block_size
            shared = self._pool.share(sequence.hashes(num_sharable, self._pool.block_size))
            needed = self._pool.blocks_for(len(sequence.tokens)) - len(shared)
            is_in_quota = needed <= self._blocks_left(sequence, shared)
            own = self._room_for(sequence, shared, needed) if is_in_quota else None
            if own is not None:
                self._start(sequence, shared, own)
                return True
            self._pool.release(shared)
            if is_in_quota:
                break
        return False

    def _start(self, sequence: Sequence, shared: list[int], own: list[int]) -> None:
        self.waiting.take(sequence)
        self.running.append(sequence)
        sequence.block_table = shared + own
        sequence.num_computed = len(shared) * self._pool.block_size
        if sequence.num_cached_tokens is None:
            sequence.num_cached_tokens = sequence.num_computed
            self.waiting.charge(sequence, PROMPT_TOKEN_COST * sequence.num_pending)

    def _room_for(self, sequence: Sequence, shared: list[int], needed: int) -> list[int] | None:
        """A place and `needed` blocks: free ones, or a tenant's that is over its share."""
        spare = len(self.running)  # a block each, so that newcomers are not preempted at once
        is_room = needed + spare <= self._pool.num_available
        if not (is_room or self._may_claim_blocks(sequence, shared, needed)):
            return None
        if len(self.running) >= self._max_num_sequences and not self._claim_place(sequence):
            return None
        while self._pool.num_available < needed:
            tenant = self._over_share_of_blocks()
            if tenant is None:
                return None
            self._preempt(self._last_of(tenant))
        return self._pool.allocate(needed)

    def _claim_place(self, sequence: Sequence) -> bool:
        """Ends another tenant's sequence if that has one too many, and this one's has not."""
        weights, held = self.waiting.weights, places_held(self.running)
        tenant, num_places = sequence.request.tenant, self._max_num_sequences
        if held.get(tenant, 0) + 1 > share_of(tenant, weights, num_places):
            return False
        other = over_share(held, weights, num_places, least_excess=1)
        if other is None:
            return False
        self._preempt(self._last_of(other))
        return True

    def _may_claim_blocks(self, sequence: Sequence, shared: list[int], needed: int) -> bool:
        """Whether its tenant stays within its share, and another one is over its own."""
        tenant = sequence.request.tenant
        num_held = len(blocks_held(self.running)[tenant].union(shared))
        share = share_of(tenant, self.waiting.weights, self._pool.num_blocks)
        return num_held + needed <= share and self._over_share_of_blocks() is not None

    def _over_share_of_blocks(self) -> str | None:
        return over_share(self._num_blocks_held(), self.waiting.weights, self._pool.num_blocks)

    def _num_blocks_held(self) -> dict[str, int]:
        return {tenant: len(blocks) for tenant, blocks in blocks_held(self.running).items()}

    def _blocks_left(self, sequence: Sequence, shared: list[int] | None = None) -> int:
        """Of its tenant's quota, beside what runs and is `shared`; all there are without one."""
        quota = sequence.request.kv_quota_tokens
        if quota is None:
            return self._pool.num_blocks
        held = blocks_held(self.running)[sequence.request.tenant].union(shared or ())
        return quota // self._pool.block_size - len(held)

    def _last_of(self, tenant: str) -> Sequence:
        """The tenant's running sequence that gives way: the least urgent, then the youngest."""
        own = [s for s in reversed(self.running) if s.request.tenant == tenant]
        return max(own, key=lambda sequence: sequence.request.priority)

    def _preempt(self, victim: Sequence) -> None:
        self.running.remove(victim)
        self._free_blocks(victim)
        victim.num_computed = 0
        self.waiting.put_back(victim)
        self.num_preemptions += 1

    def _waits_for_leader(self, sequence: Sequence) -> bool:
        """Whether the choice that shares its prompt is still about to compute it."""
        leader_id = sequence.request.leader_id
        if leader_id is None or leader_id == sequence.id or sequence.num_generated:
            return False
        leader = self._live.get(leader_id)
        return leader is not None and not leader.num_generated

    def _free_blocks(self, sequence: Sequence) -> None:
        self._pool.release(sequence.block_table)
        sequence.block_table = []
