"""Drafts with a head: a layer or two on the target's last hidden state, in the target's process.

It samples with the target's noise and parameters from its own distribution. From its second token
on a draft runs on the head's own states, so that what it would have drafted at a position is found
by drafting from there again: drafts and scores are one and the same loop over chains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from engine.drafters.drafter import Draft, DraftRequest, Outcome, Past, ScoreRequest
from engine.drafters.head_runner import HeadRunner
from engine.drafters.head_sequence import HeadSequence
from engine.drafters.residents import Residents
from engine.drafters.stopping import Stopping
from engine.runner import Extension
from engine.sampling import TokenSampler

Request = TypeVar("Request", DraftRequest, ScoreRequest)

_MAX_BATCH_TOKENS = 512  # of one catch-up forward
_MAX_CHAINS = 32  # drafted at once, each in scratch blocks of its own


def scratch_blocks(block_size: int, max_draft_length: int) -> int:
    """How many blocks a head needs to draft in; the first of a chain's is begun by others."""
    return _MAX_CHAINS * _blocks_of_chain(block_size, max_draft_length)


def _blocks_of_chain(block_size: int, max_draft_length: int) -> int:
    return -(-(block_size - 1 + max_draft_length) // block_size)


@dataclass(slots=True)
class _Chain:
    """A draft from position `base` on, as it grows. With `truth` it ends at a wrong token."""

    sequence: HeadSequence
    base: int
    start: Tensor  # [hidden_size], the state of token base - 1
    sampler: TokenSampler
    longest: int
    truth: Sequence[int] | None = None
    tokens: list[int] = field(default_factory=list)
    evidence: list[float] = field(default_factory=list)
    is_stopped: bool = False

    @property
    def is_right(self) -> bool:
        """Whether the last token is the verified one."""
        assert self.truth is not None
        return self.tokens[-1] == self.truth[len(self.tokens) - 1]

    @property
    def may_grow(self) -> bool:
        if len(self.tokens) >= self.longest or self.is_stopped:
            return False
        return self.truth is None or (self.is_right and len(self.tokens) < len(self.truth))

    @property
    def is_open(self) -> bool:
        """Whether the verified tokens ended before it did."""
        assert self.truth is not None
        is_over = self.is_stopped or len(self.tokens) >= self.longest
        return self.is_right and not is_over

    @property
    def accept_length(self) -> int:
        return len(self.tokens) if self.is_right else len(self.tokens) - 1


class HeadDrafter:
    """See Drafter. Sequences that do not fit into its KV cache are forgotten, oldest use first.

    Requests must bring the target's hidden states; without those of all tokens but the last there
    is no offer, and no outcome.
    """

    is_free = False

    def __init__(
        self,
        name: str,
        runner: HeadRunner,
        max_draft_length: int,
        stopping: Stopping | None = None,
    ) -> None:
        room = runner.room
        needed = scratch_blocks(room.block_size, max_draft_length)
        assert room.num_scratch_blocks >= needed, "too few blocks to draft in"
        self.name = name
        self.max_draft_length = max_draft_length
        self._runner = runner
        self._stopping = stopping
        self._residents: Residents[HeadSequence] = Residents(room.num_blocks, room.block_size)

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        lengths = [min(request.draft_length, self.max_draft_length) for request in requests]
        ready = self._admit([r for r, length in zip(requests, lengths, strict=True) if length > 0])
        self._catch_up(list(ready.values()), self._num_cached(ready))
        chains = {
            i: self._draft_chain(request, length)
            for i, (request, length) in enumerate(zip(requests, lengths, strict=True))
            if length > 0 and request.sequence_id in ready
        }
        self._grow(list(chains.values()))
        return [
            Draft(len(r.tokens), tuple(chains[i].tokens), is_stopped=chains[i].is_stopped)
            if i in chains
            else Draft(len(r.tokens))
            for i, r in enumerate(requests)
        ]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        ready = self._admit(requests)
        starts = {}
        for name, request in ready.items():
            sequence = self._residents[name]
            first = sequence.unsettled(request.tokens)[:1] or [len(request.tokens)]
            starts[name] = max(0, min(first[0] - 1, sequence.num_cached))
        states = self._catch_up(list(ready.values()), starts)
        chains = {
            name: self._chains(request, states[name], starts[name])
            for name, request in ready.items()
        }
        self._grow([chain for each in chains.values() for chain in each])
        return [self._settle(request, chains.get(request.sequence_id, [])) for request in requests]

    def forecast(self, requests: Sequence[DraftRequest]) -> list[float | None]:
        """Catches up, which the draft then need not do any more, and draws one token."""
        chances: list[float | None] = [None] * len(requests)
        if self._stopping is None:
            return chances
        ready = self._admit(requests)
        self._catch_up(list(ready.values()), self._num_cached(ready))
        chains = {name: self._draft_chain(request, 1) for name, request in ready.items()}
        self._grow(list(chains.values()))
        for i, request in enumerate(requests):
            if request.sequence_id in chains:
                evidence = chains[request.sequence_id].evidence
                (chances[i],) = self._stopping.chances(evidence)
        return chances

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self._residents.forget(sequence_ids)

    def _admit(self, requests: Sequence[Request]) -> dict[str, Request]:
        """Those that have their past and get room, by sequence."""
        ready: dict[str, Request] = {}
        for request in requests:
            name, num_tokens = request.sequence_id, len(request.tokens)
            prompt = request.tokens[: request.num_prompt_tokens]
            self._residents.use(name, partial(HeadSequence, prompt, request.sampling))
            is_known = _past_of(request).num_known >= num_tokens - 1
            if is_known and self._residents.make_room(name, num_tokens, set(ready)):
                ready[name] = request
        return ready

    def _catch_up(
        self, requests: Sequence[DraftRequest | ScoreRequest], starts: dict[str, int]
    ) -> dict[str, Tensor]:
        """Caches the tokens from `starts` to the end; the states of these: [num_tokens, hidden]."""
        parts: dict[str, list[Tensor]] = {request.sequence_id: [] for request in requests}
        at = dict(starts)
        while True:
            batch, budget = [], _MAX_BATCH_TOKENS
            for request in requests:
                num_new = min(len(request.tokens) - at[request.sequence_id], budget)
                if num_new > 0:
                    batch.append((request, at[request.sequence_id], num_new))
                    budget -= num_new
            if not batch:
                break
            found = self._extend(batch).split([num_new for _, _, num_new in batch])
            for (request, _, num_new), states in zip(batch, found, strict=True):
                parts[request.sequence_id].append(states)
                at[request.sequence_id] += num_new
        for request in requests:
            sequence = self._residents[request.sequence_id]
            if parts[request.sequence_id]:
                sequence.num_cached = len(request.tokens)
                sequence.state = parts[request.sequence_id][-1][-1].clone()
        return {name: torch.cat(states) for name, states in parts.items() if states}

    def _num_cached(self, names: Iterable[str]) -> dict[str, int]:
        return {name: self._residents[name].num_cached for name in names}

    def _draft_chain(self, request: DraftRequest, length: int) -> _Chain:
        """From the end of a sequence that is all cached."""
        sequence = self._residents[request.sequence_id]
        assert sequence.state is not None, "all of it is cached"
        sampler = sequence.draft_sampler(request.tokens)
        return _Chain(sequence, len(request.tokens), sequence.state, sampler, length)

    def _extend(self, batch: Sequence[tuple[DraftRequest | ScoreRequest, int, int]]) -> Tensor:
        extensions, pasts = [], []
        for request, start, num_new in batch:
            table = self._residents[request.sequence_id].block_table
            extensions.append(Extension(request.tokens[start : start + num_new], start, table, 0))
            past = _past_of(request).read(max(0, start - 1), start + num_new - 1)
            pasts += [past] if start > 0 else [past.new_zeros(1, past.shape[1]), past]
        return self._runner.extend(extensions, torch.cat(pasts))

    def _chains(self, request: ScoreRequest, states: Tensor, start: int) -> list[_Chain]:
        """One for every position that is not settled; `states` begin at token `start`."""
        sequence, tokens = self._residents[request.sequence_id], request.tokens
        return [
            _Chain(
                sequence,
                position,
                states[position - 1 - start],
                sampler,
                self.max_draft_length,
                tokens[position : position + self.max_draft_length],
            )
            for position, sampler in sequence.score_samplers(tokens).items()
        ]

    def _settle(self, request: ScoreRequest, chains: Sequence[_Chain]) -> list[Outcome]:
        if not chains:
            return []
        sequence = self._residents[request.sequence_id]
        waits = [chain for chain in chains if chain.is_open and not request.finished]
        sequence.settle(request.tokens, [chain.base for chain in waits])
        longest = self.max_draft_length
        return [
            Outcome(chain.base, longest, chain.accept_length, censored=chain.is_open)
            for chain in chains
            if not (chain.is_open and not request.finished)
        ]

    def _grow(self, chains: Sequence[_Chain]) -> None:
        """Drafts every chain to its end, some at a time."""
        for first in range(0, len(chains), _MAX_CHAINS):
            self._grow_together(chains[first : first + _MAX_CHAINS])

    def _grow_together(self, chains: Sequence[_Chain]) -> None:
        """One row per chain: draw a token, and where the draft goes on feed it back."""
        tables = self._scratch_tables(chains)
        going = list(zip(chains, tables, strict=True))
        states = torch.stack([chain.start for chain in chains])
        while going:
            self._draw([chain for chain, _ in going], states)
            kept = [row for row, (chain, _) in enumerate(going) if chain.may_grow]
            if not kept:
                return
            states = states if len(kept) == len(going) else states[kept]
            going = [going[row] for row in kept]
            extensions = []
            for chain, table in going:
                chain.sampler.push(chain.tokens[-1])
                at = chain.base + len(chain.tokens) - 1
                extensions.append(Extension(chain.tokens[-1:], at, table, 0))
            states = self._runner.extend(extensions, states)

    def _draw(self, chains: Sequence[_Chain], states: Tensor) -> None:
        """The next token of every chain, and whether it stops behind it."""
        logits = self._runner.logits(states)
        for row, chain in enumerate(chains):
            position = chain.base + len(chain.tokens)
            chain.tokens.append(logits.draw(row, chain.sampler, position))
        if self._stopping is None:
            return
        found = self._stopping.evidence(logits, [chain.tokens[-1] for chain in chains])
        for chain, evidence in zip(chains, found, strict=True):
            chain.evidence.append(evidence)
        goes_on = self._stopping.goes_on([chain.evidence for chain in chains])
        for chain, goes in zip(chains, goes_on, strict=True):
            chain.is_stopped = not goes and len(chain.tokens) < chain.longest

    def _scratch_tables(self, chains: Sequence[_Chain]) -> list[list[int]]:
        """Block tables to draft in: the verified blocks are shared, the last begun one copied."""
        room = self._runner.room
        each = _blocks_of_chain(room.block_size, self.max_draft_length)
        sources, targets, tables = [], [], []
        for row, chain in enumerate(chains):
            own = [room.num_blocks + row * each + i for i in range(each)]
            num_shared, num_begun = divmod(chain.base, room.block_size)
            if num_begun:
                sources.append(chain.sequence.block_table[num_shared])
                targets.append(own[0])
            tables.append([*chain.sequence.block_table[:num_shared], *own])
        self._runner.copy_blocks(sources, targets)
        return tables


def _past_of(request: DraftRequest | ScoreRequest) -> Past:
    if request.past is None:
        raise ValueError("a head needs the target's hidden states, and the request has none")
    return request.past
