"""Who computes what in the next forward: continuous batching, chunked prefill, preemption.

Every running sequence gets its next token each round; prefill chunks share what the token budget
leaves; new sequences start, first come first served, when all their blocks fit. When a running
sequence needs a block and none is left, the youngest one gives up its blocks and is computed again
later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.block_pool import BlockPool
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
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first
        self.num_preemptions = 0

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forgets a sequence and frees its blocks, wherever it is."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._free_blocks(sequence)
        else:
            self.waiting.remove(sequence)

    def plan(self) -> list[Step]:
        """The next forward: decoding first, then prefill, then new sequences."""
        for sequence in list(self.running):
            if sequence in self.running:
                self._make_room(sequence)
        steps = [Step(sequence, 1) for sequence in self.running if sequence.num_pending == 1]
        budget = self._max_batch_tokens - len(steps)
        for sequence in self.running:
            if sequence.num_pending > 1 and budget > 0:
                steps.append(Step(sequence, min(sequence.num_pending, budget)))
                budget -= steps[-1].num_new
        while budget > 0 and (sequence_in := self._admit()) is not None:
            steps.append(Step(sequence_in, min(sequence_in.num_pending, budget)))
            budget -= steps[-1].num_new
        return steps

    def room_for_draft(self, sequence: Sequence, num_draft_tokens: int) -> int:
        """How many draft tokens fit without taking a block from anyone; takes their blocks."""
        missing = self._missing_blocks(sequence, len(sequence.tokens) + num_draft_tokens)
        taken = self._pool.allocate(min(missing, self._pool.num_available))
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
        """Blocks for all verified tokens of a running sequence, preempting the youngest."""
        missing = self._missing_blocks(sequence, len(sequence.tokens))
        while (taken := self._pool.allocate(missing)) is None:
            victim = self.running.pop()
            self._free_blocks(victim)
            victim.num_computed = 0
            self.waiting.appendleft(victim)
            self.num_preemptions += 1
            if victim is sequence:
                return
        sequence.block_table += taken

    def _admit(self) -> Sequence | None:
        """Starts the first sequence that may start, if there is room for all of its tokens."""
        if len(self.running) >= self._max_num_sequences:
            return None
        sequence = next((s for s in self.waiting if not self._waits_for_leader(s)), None)
        if sequence is None:
            return None
        num_sharable = (len(sequence.tokens) - 1) // self._pool.block_size
        shared = self._pool.share(sequence.hashes(num_sharable, self._pool.block_size))
        needed = self._pool.blocks_for(len(sequence.tokens)) - len(shared)
        spare = len(self.running)  # a block each, so that newcomers are not preempted at once
        fits = needed + spare <= self._pool.num_available
        own = self._pool.allocate(needed) if fits else None
        if own is None:
            self._pool.release(shared)
            return None
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.block_table = shared + own
        sequence.num_computed = len(shared) * self._pool.block_size
        if sequence.num_cached_tokens is None:
            sequence.num_cached_tokens = sequence.num_computed
        return sequence

    def _waits_for_leader(self, sequence: Sequence) -> bool:
        """Whether the choice that shares its prompt is still about to compute it."""
        leader_id = sequence.request.leader_id
        if leader_id is None or leader_id == sequence.id or sequence.num_generated:
            return False
        if any(s.id == leader_id and not s.num_generated for s in self.running):
            return True
        return any(s.id == leader_id and not s.num_generated for s in self.waiting)

    def _free_blocks(self, sequence: Sequence) -> None:
        self._pool.release(sequence.block_table)
        sequence.block_table = []
