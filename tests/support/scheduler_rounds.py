"""A scheduler with a forward that only counts, and with its invariants checked every round."""

from __future__ import annotations

from typing import Any

from engine.answer_text import AnswerText
from engine.block_pool import BlockPool
from engine.request import GenerationRequest, SamplingParams
from engine.scheduler import Scheduler, Step
from engine.sequence import Sequence

BLOCK_SIZE = 4


class NoText:
    def push(self, token_id: int) -> str:
        return ""

    def flush(self) -> str:
        return ""


def sequence(
    name: str,
    num_prompt_tokens: int,
    max_tokens: int = 8,
    leader: str | None = None,
    tenant: str = "t",
    first: int = 0,
    **options: Any,
) -> Sequence:
    prompt = tuple(first + i for i in range(num_prompt_tokens))
    request = GenerationRequest(
        name, prompt, max_tokens, SamplingParams(), tenant=tenant, leader_id=leader, **options
    )
    return Sequence(request, AnswerText(NoText(), ()), (), 1000)


class Rounds:
    """A scheduler and the forward: says token 7 wherever a token is due."""

    def __init__(
        self, num_blocks: int = 64, max_num_sequences: int = 8, max_batch_tokens: int = 32
    ) -> None:
        self.pool = BlockPool(num_blocks, BLOCK_SIZE)
        self.max_batch_tokens = max_batch_tokens
        self.scheduler = Scheduler(self.pool, max_num_sequences, max_batch_tokens)
        self.finished: list[str] = []

    def add(self, *sequences: Sequence) -> None:
        for added in sequences:
            self.scheduler.add(added)

    def plan(self) -> list[Step]:
        steps = self.scheduler.plan()
        self.check(steps)
        return steps

    def play(self, draft_length: int = 0) -> list[str]:
        """One round; the ids planned, in order."""
        steps = self.plan()
        for step in steps:
            if step.emits and draft_length:
                self.check_draft(step.sequence, draft_length)
        for step in steps:
            planned = step.sequence
            emits = step.emits
            planned.num_computed += step.num_new
            if emits:
                planned.append(7)
                self.scheduler.charge(planned, 1)
            self.scheduler.publish(planned)
            if planned.finish_reason:
                self.scheduler.remove(planned)
                self.finished.append(planned.id)
        self.check_blocks()
        return [step.sequence.id for step in steps]

    def check(self, steps: list[Step]) -> None:
        planned = {step.sequence.id: step for step in steps}
        assert len(planned) == len(steps), "planned twice"
        assert sum(step.num_new for step in steps) <= self.max_batch_tokens
        for running in self.scheduler.running:
            if running.num_pending == 1:
                assert planned[running.id].num_new == 1, "a decoding sequence was left out"
        for step in steps:
            assert step.sequence in self.scheduler.running
            assert 1 <= step.num_new <= step.sequence.num_pending
            room = len(step.sequence.block_table) * BLOCK_SIZE
            assert room >= step.sequence.num_computed + step.num_new
        self.check_blocks()

    def check_draft(self, drafted: Sequence, draft_length: int) -> None:
        others = {s.id: list(s.block_table) for s in self.scheduler.running if s is not drafted}
        num_available = self.pool.num_available
        room = self.scheduler.room_for_draft(drafted, draft_length)
        assert 0 <= room <= draft_length
        assert len(drafted.block_table) * BLOCK_SIZE >= len(drafted.tokens) + room
        has_quota = drafted.request.kv_quota_tokens is not None
        assert room == draft_length or self.pool.num_available == 0 or has_quota
        assert self.pool.num_available <= num_available
        assert others == {s.id: s.block_table for s in self.scheduler.running if s is not drafted}

    def check_blocks(self) -> None:
        self.pool.check_integrity()
        used = [block for s in self.scheduler.running for block in set(s.block_table)]
        assert len(set(used)) == self.pool.num_used
        assert all(not s.block_table and not s.num_computed for s in self.scheduler.waiting)
        shared_by_tenant: dict[int, str] = {}
        for running in self.scheduler.running:
            assert len(set(running.block_table)) == len(running.block_table)
            for block in running.block_table:
                assert shared_by_tenant.setdefault(block, running.request.tenant) == (
                    running.request.tenant
                )

    def play_out(self, draft_length: int = 0, limit: int = 3000) -> None:
        for _ in range(limit):
            if not (self.scheduler.running or self.scheduler.waiting):
                return
            self.play(draft_length)
        raise AssertionError("it does not come to an end")
