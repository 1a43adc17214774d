"""Drafts with a smaller causal LM of the target's vocabulary, in this process.

It samples with the target's noise and parameters from its own distribution. Verified tokens are
caught up in one forward; every one of them is predicted exactly once, for `score`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from engine.block_pool import BlockPool
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.drafters.tracked import TrackedSequence
from engine.runner import Extension, Logits, ModelRunner

_MAX_BATCH_TOKENS = 512  # of one catch-up forward


class ModelDrafter:
    """See Drafter. Sequences that do not fit into its KV cache are forgotten, oldest use first."""

    is_free = False

    def __init__(
        self,
        name: str,
        runner: ModelRunner,
        max_draft_length: int,
        *,
        num_blocks: int,
        block_size: int,
        max_sequence_length: int,
    ) -> None:
        self.name = name
        self.max_draft_length = max_draft_length
        self._runner = runner
        self._pool = BlockPool(num_blocks, block_size)
        self._max_length = max_sequence_length
        self._tracked: OrderedDict[str, TrackedSequence] = OrderedDict()

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        longest = self.max_draft_length
        lengths = [min(r.draft_length, longest, self._max_length - len(r.tokens)) for r in requests]
        ready: list[int] = []
        busy: set[str] = set()
        for i, (request, length) in enumerate(zip(requests, lengths, strict=True)):
            if length > 0 and self._make_room(request, length, busy):
                busy.add(request.sequence_id)
                ready.append(i)
        self._catch_up([requests[i] for i in ready])
        drafts = self._draft_ahead({i: (requests[i], lengths[i]) for i in ready})
        return [
            Draft(len(request.tokens), tuple(drafts.get(i, ())))
            for i, request in enumerate(requests)
        ]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        """As the contract says, with as few forwards as the cache has room for."""
        outcomes: list[list[Outcome]] = [[] for _ in requests]
        waiting = [i for i, r in enumerate(requests) if len(r.tokens) <= self._max_length]
        while waiting:  # what is longer was never drafted, so that there is nothing to tell
            busy: set[str] = set()
            batch = []
            for i in waiting:
                sequence_id = requests[i].sequence_id
                if sequence_id not in busy and self._make_room(requests[i], 0, busy):
                    busy.add(sequence_id)
                    batch.append(i)
            self._catch_up([requests[i] for i in batch])
            for i in batch:
                outcomes[i] = self._settle(requests[i])
            waiting = [i for i in waiting if i not in batch] if batch else []
        return outcomes

    def forget(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            tracked = self._tracked.pop(sequence_id, None)
            if tracked is not None:
                self._pool.release(tracked.block_table)

    def _settle(self, request: ScoreRequest) -> list[Outcome]:
        tracked = self._tracked[request.sequence_id]
        return tracked.settle(request.tokens, self.max_draft_length, request.finished)

    def _make_room(
        self, request: DraftRequest | ScoreRequest, num_draft_tokens: int, busy: set[str]
    ) -> bool:
        """Syncs the sequence and gets its blocks, evicting others that are not `busy`."""
        tracked = self._tracked.get(request.sequence_id)
        if tracked is None:
            prompt = request.tokens[: request.num_prompt_tokens]
            tracked = self._tracked[request.sequence_id] = TrackedSequence(prompt, request.sampling)
        self._tracked.move_to_end(request.sequence_id)
        tracked.sync(request.tokens)
        needed = self._pool.blocks_for(len(request.tokens) + num_draft_tokens)
        missing = max(0, needed - len(tracked.block_table))
        while (taken := self._pool.allocate(missing)) is None:
            if not self._evict_one(busy | {request.sequence_id}):
                return False
        tracked.block_table += taken
        return True

    def _evict_one(self, busy: set[str]) -> bool:
        """Takes the blocks of the least recently used sequence; its predictions stay."""
        for sequence_id, tracked in self._tracked.items():
            if sequence_id not in busy and tracked.block_table:
                self._pool.release(tracked.block_table)
                tracked.block_table, tracked.cached = [], []
                return True
        return False

    def _catch_up(self, requests: Sequence[DraftRequest | ScoreRequest]) -> None:
        """Caches all verified tokens of `requests` and predicts where that was not done yet."""
        while True:
            batch, budget = [], _MAX_BATCH_TOKENS
            for request in requests:
                tracked = self._tracked[request.sequence_id]
                num_new = min(len(request.tokens) - len(tracked.cached), budget)
                if num_new > 0:
                    batch.append((request, tracked, num_new))
                    budget -= num_new
            if not batch:
                return
            self._extend_verified(batch)

    def _extend_verified(
        self, batch: Sequence[tuple[DraftRequest | ScoreRequest, TrackedSequence, int]]
    ) -> None:
        extensions = []
        for request, tracked, num_new in batch:
            start = len(tracked.cached)
            tokens = request.tokens[start : start + num_new]
            num_logits = max(0, start + num_new - (tracked.next_prediction - 1))
            extensions.append(Extension(tokens, start, tracked.block_table, num_logits))
        logits = self._runner.extend(extensions)
        row = 0
        for (request, tracked, _), extension in zip(batch, extensions, strict=True):
            tracked.cached += extension.tokens
            for _ in range(extension.num_logits):
                tracked.predict(logits.row(row), request.tokens)
                row += 1

    def _draft_ahead(self, asked: dict[int, tuple[DraftRequest, int]]) -> dict[int, list[int]]:
        """The drafts by index: the known first token, then one forward per further token."""
        tracked = {i: self._tracked[request.sequence_id] for i, (request, _) in asked.items()}
        samplers = {
            i: tracked[i].draft_sampler(request.tokens) for i, (request, _) in asked.items()
        }
        drafts = {i: [tracked[i].first_draft(request.tokens)] for i, (request, _) in asked.items()}
        while going := [i for i, (_, length) in asked.items() if len(drafts[i]) < length]:
            logits = self._extend_drafts([(tracked[i], drafts[i][-1]) for i in going])
            for row, i in enumerate(going):
                request = asked[i][0]
                samplers[i].push(drafts[i][-1])
                position = len(request.tokens) + len(drafts[i])
                drafts[i].append(samplers[i].sample(logits.row(row), position))
                tracked[i].note_draft(drafts[i][-1])
        return drafts

    def _extend_drafts(self, batch: Sequence[tuple[TrackedSequence, int]]) -> Logits:
        extensions = [
            Extension([token], len(tracked.cached), tracked.block_table, 1)
            for tracked, token in batch
        ]
        for tracked, token in batch:
            tracked.cached.append(token)
        return self._runner.extend(extensions)
