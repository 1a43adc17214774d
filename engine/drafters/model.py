"""Drafts with a smaller causal LM of the target's vocabulary, in this process.

It samples with the target's noise and parameters from its own distribution. Verified tokens are
caught up in one forward; every one of them is predicted exactly once, for `score`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.drafters.residents import Residents
from engine.drafters.stopping import Stopping
from engine.drafters.tracked import TrackedSequence
from engine.runner import Extension, Logits, ModelRunner
from engine.sampling import TokenSampler

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
        stopping: Stopping | None = None,
    ) -> None:
        self.name = name
        self.max_draft_length = max_draft_length
        self._runner = runner
        self._max_length = max_sequence_length
        self._stopping = stopping
        self._residents: Residents[TrackedSequence] = Residents(num_blocks, block_size)

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
        asked = {i: (requests[i], lengths[i]) for i in ready}
        drafts = self._grow(asked)
        return [
            Draft(
                len(request.tokens),
                tuple(drafts.get(i, ())),
                is_stopped=i in asked and len(drafts[i]) < lengths[i],
            )
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

    def forecast(self, requests: Sequence[DraftRequest]) -> list[float | None]:
        """Catches up, which the draft then need not do any more."""
        chances: list[float | None] = [None] * len(requests)
        if self._stopping is None:
            return chances
        busy: set[str] = set()
        ready = []
        for i, request in enumerate(requests):
            if len(request.tokens) < self._max_length and self._make_room(request, 1, busy):
                busy.add(request.sequence_id)
                ready.append(i)
        self._catch_up([requests[i] for i in ready])
        for i in ready:
            tracked, base = self._residents[requests[i].sequence_id], len(requests[i].tokens)
            (chances[i],) = self._stopping.chances(tracked.evidence(base, base + 1))
        return chances

    def draft_ahead(self, requests: Sequence[DraftRequest]) -> bool:
        """See Forerunner."""
        batch = []
        for request in requests:
            tracked = self._residents.find(request.sequence_id)
            if tracked is None:
                continue
            tracked.sync(request.tokens)
            end, base = tracked.next_prediction, len(request.tokens)
            is_wanted = base < end < min(base + request.draft_length, self._max_length)
            is_cached = len(tracked.cached) == end - 1
            if (
                is_wanted
                and is_cached
                and self._residents.make_room(request.sequence_id, end, None)
            ):
                sampler = tracked.draft_sampler(request.tokens)
                for position in range(base, end):
                    sampler.push(tracked.prediction(position))
                batch.append((tracked, sampler))
        self._draw_next(batch)
        return bool(batch)

    def read(self, requests: Sequence[ScoreRequest], max_tokens: int) -> list[int]:
        """See Reader."""
        busy: set[str] = set()
        ready: list[ScoreRequest] = []
        for request in requests:
            fits = len(request.tokens) <= self._max_length
            if fits and request.sequence_id not in busy and self._make_room(request, 0, busy):
                busy.add(request.sequence_id)
                ready.append(request)
        ready.sort(key=self._num_uncached)
        while ready and max_tokens > 0:
            num_read = self._read_on(ready, min(max_tokens, _MAX_BATCH_TOKENS))
            if not num_read:
                break
            max_tokens -= num_read
        left = {request.sequence_id: self._num_uncached(request) for request in ready}
        return [left.get(request.sequence_id, 0) for request in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self._residents.forget(sequence_ids)

    def _settle(self, request: ScoreRequest) -> list[Outcome]:
        tracked = self._residents[request.sequence_id]
        longest, is_finished = self.max_draft_length, request.finished
        return tracked.settle(request.tokens, longest, is_finished, self._stopping)

    def _make_room(
        self, request: DraftRequest | ScoreRequest, num_draft_tokens: int, busy: set[str]
    ) -> bool:
        """Syncs the sequence and gets its blocks, evicting others that are not `busy`."""
        prompt = request.tokens[: request.num_prompt_tokens]
        tracked = self._residents.use(
            request.sequence_id, partial(TrackedSequence, prompt, request.sampling)
        )
        tracked.sync(request.tokens)
        num_tokens = len(request.tokens) + num_draft_tokens
        return self._residents.make_room(request.sequence_id, num_tokens, busy)

    def _num_uncached(self, request: DraftRequest | ScoreRequest) -> int:
        return max(0, len(request.tokens) - len(self._residents[request.sequence_id].cached))

    def _catch_up(self, requests: Sequence[DraftRequest | ScoreRequest]) -> None:
        """Caches all verified tokens of `requests` and predicts where that was not done yet."""
        while self._read_on(requests, _MAX_BATCH_TOKENS):
            pass

    def _read_on(self, requests: Sequence[DraftRequest | ScoreRequest], max_tokens: int) -> int:
        """Caches up to so many of the tokens in one forward; how many it were."""
        batch, budget = [], max_tokens
        for request in requests:
            num_new = min(self._num_uncached(request), budget)
            if num_new > 0:
                batch.append((request, self._residents[request.sequence_id], num_new))
                budget -= num_new
        if batch:
            self._extend_verified(batch)
        return max_tokens - budget

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
        drawn: list[tuple[TrackedSequence, int, int]] = []
        for (request, tracked, _), extension in zip(batch, extensions, strict=True):
            tracked.cached += extension.tokens
            for _ in range(extension.num_logits):
                position = tracked.next_prediction
                token = tracked.predict(logits, len(drawn), request.tokens)
                drawn.append((tracked, position, token))
        self._note_evidence(logits, drawn)

    def _note_evidence(
        self, logits: Logits, drawn: Sequence[tuple[TrackedSequence, int, int]]
    ) -> None:
        """Of the tokens drawn from each row of `logits`, each at its position."""
        if self._stopping is None or not drawn:
            return
        found = self._stopping.evidence(logits, [token for _, _, token in drawn])
        for (tracked, position, _), evidence in zip(drawn, found, strict=True):
            tracked.note_evidence(position, evidence)

    def _grow(self, asked: dict[int, tuple[DraftRequest, int]]) -> dict[int, list[int]]:
        """The drafts by index: what is known of each, then one forward per further token."""
        tracked = {i: self._residents[request.sequence_id] for i, (request, _) in asked.items()}
        bases = {i: len(request.tokens) for i, (request, _) in asked.items()}
        samplers = {
            i: tracked[i].draft_sampler(request.tokens) for i, (request, _) in asked.items()
        }
        drafts = {i: [tracked[i].prediction(base)] for i, base in bases.items()}
        going = self._going_on(list(asked), asked, drafts)
        while going:
            for i in going:
                samplers[i].push(drafts[i][-1])
            ends = {i: bases[i] + len(drafts[i]) for i in going}
            unknown = [i for i in going if ends[i] >= tracked[i].next_prediction]
            self._draw_next([(tracked[i], samplers[i]) for i in unknown])
            for i in going:
                drafts[i].append(tracked[i].prediction(ends[i]))
            going = self._going_on(going, asked, drafts)
        return drafts

    def _draw_next(self, batch: Sequence[tuple[TrackedSequence, TokenSampler]]) -> None:
        """One more prediction of each; the samplers have seen all that there are."""
        if not batch:
            return
        ends = [tracked.next_prediction for tracked, _ in batch]
        last = [
            (tracked, tracked.prediction(end - 1))
            for (tracked, _), end in zip(batch, ends, strict=True)
        ]
        logits = self._extend_drafts(last)
        drawn = []
        for row, ((tracked, sampler), end) in enumerate(zip(batch, ends, strict=True)):
            tracked.note_draft(logits.draw(row, sampler, end))
            drawn.append((tracked, end, tracked.prediction(end)))
        self._note_evidence(logits, drawn)

    def _going_on(
        self,
        going: Sequence[int],
        asked: dict[int, tuple[DraftRequest, int]],
        drafts: dict[int, list[int]],
    ) -> list[int]:
        """Those of the equally long drafts `going` that get one more token."""
        going = [i for i in going if len(drafts[i]) < asked[i][1]]
        if self._stopping is None or not going:
            return going
        evidence = []
        for i in going:
            request, base = asked[i][0], len(asked[i][0].tokens)
            tracked = self._residents[request.sequence_id]
            evidence.append(tracked.evidence(base, base + len(drafts[i])))
        goes_on = self._stopping.goes_on(evidence)
        return [i for i, goes in zip(going, goes_on, strict=True) if goes]

    def _extend_drafts(self, batch: Sequence[tuple[TrackedSequence, int]]) -> Logits:
        extensions = [
            Extension([token], len(tracked.cached), tracked.block_table, 1)
            for tracked, token in batch
        ]
        for tracked, token in batch:
            tracked.cached.append(token)
        return self._runner.extend(extensions)
