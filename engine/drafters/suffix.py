"""Suffix drafter: what followed the longest suffix seen before, in this sequence or its tenant's.

The longer the match, the longer the draft (Oliaro et al., "SuffixDecoding", arXiv 2411.04975, with
automata for trees and the most recent continuation for the most frequent). Tenants share nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.drafters.prompt_lookup import Offer, OpenOffers
from engine.drafters.suffix_automaton import ROOT, SuffixAutomaton

SEPARATOR = -1  # between outputs; never a token id, so nothing matches across it


@dataclass(frozen=True, slots=True)
class SuffixRule:
    """How a match becomes an offer: `tokens_per_match` draft tokens per matching token.

    The defaults are measured on Llama-3.1-8B's answers: a match in another answer proves less than
    one in the same, so it must be longer (`min_shared_match`). No match counts beyond `max_match`.
    """

    min_match: int = 2
    min_shared_match: int = 4
    max_match: int = 32
    tokens_per_match: float = 2.0

    def draft_length(self, match_length: int, is_shared: bool) -> int:
        if match_length < (self.min_shared_match if is_shared else self.min_match):
            return 0
        return int(match_length * self.tokens_per_match)


DEFAULT_RULE = SuffixRule()


class TenantOutputs:
    """A tenant's recent outputs, in two generations of at most `max_tokens // 2` each.

    When the current generation is full it becomes the previous one, and that one goes.
    `version` changes with the contents.
    """

    def __init__(self, max_tokens: int) -> None:
        self.version = 0
        self.generations = (SuffixAutomaton(), SuffixAutomaton())
        self._limit = max_tokens // 2

    @property
    def num_tokens(self) -> int:
        return sum(len(generation) for generation in self.generations)

    def add(self, output: Sequence[int], version: int) -> None:
        """Appends an output, or its end if it is longer than a generation."""
        output = output[max(0, len(output) - self._limit + 1) :]
        if not output or self._limit < 2:
            return
        if len(self.generations[0]) + len(output) + 1 > self._limit:
            self.generations = (SuffixAutomaton(), self.generations[0])
        for token in output:
            self.generations[0].append(token)
        self.generations[0].append(SEPARATOR)
        self.version = version


NO_OUTPUTS = TenantOutputs(0)


class _Sequence:
    """One sequence: its own automaton, and how far its end matches each of the tenant's."""

    def __init__(self, rule: SuffixRule, max_draft_length: int) -> None:
        self.own = SuffixAutomaton()
        self.offer = Offer(0, self.own.tokens, 0, 0, 0)
        self.open_offers = OpenOffers()
        self.is_shared = False
        self._rule = rule
        self._max_draft_length = max_draft_length
        self._version = -1
        self._matches: list[tuple[int, int]] = []  # (state, length) by generation

    def extend(self, request: DraftRequest | ScoreRequest, outputs: TenantOutputs) -> None:
        """Takes in the new tokens; each position's offer uses what is known here and now."""
        tokens, first = request.tokens, request.num_prompt_tokens - 1
        if len(self.own) == len(tokens):
            return
        for position in range(len(self.own), first):
            self.own.append(tokens[position])
        if self._version != outputs.version:
            self._match_again(outputs)
        for position in range(len(self.own), len(tokens)):
            own_end, own_length = self.own.append(tokens[position])
            self._step(tokens[position], outputs)
            self.offer = self._best_offer(own_end, own_length, outputs)
            self.open_offers.record(self.offer, tokens[position])
        self.open_offers.settle(self.own.tokens)

    def _match_again(self, outputs: TenantOutputs) -> None:
        """Follows the last tokens through automata that have changed, or are new here."""
        self._version = outputs.version
        self._matches = [(ROOT, 0) for _ in outputs.generations]
        for token in self.own.tokens[-self._rule.max_match :]:
            self._step(token, outputs)

    def _step(self, token: int, outputs: TenantOutputs) -> None:
        for index, automaton in enumerate(outputs.generations):
            state, length = automaton.step(*self._matches[index], token)
            if length > self._rule.max_match:
                length = self._rule.max_match
                state = automaton.shorten(state, length)
            self._matches[index] = (state, length)

    def _best_offer(self, own_end: int, own_length: int, outputs: TenantOutputs) -> Offer:
        """The longest match that offers something; this sequence and newer outputs win ties."""
        best = self._offer(self.own, own_end, min(own_length, self._rule.max_match))
        for automaton, (state, length) in zip(outputs.generations, self._matches, strict=True):
            if length > best.match_length:
                offer = self._offer(automaton, automaton.latest_end(state), length)
                best = offer if offer.num_offered else best
        return best

    def _offer(self, automaton: SuffixAutomaton, end: int, match_length: int) -> Offer:
        is_shared = automaton is not self.own
        wanted = self._rule.draft_length(match_length, is_shared)
        num_offered = min(wanted, self._max_draft_length)
        if is_shared and num_offered:
            following = automaton.tokens[end : end + num_offered]
            num_offered = following.index(SEPARATOR) if SEPARATOR in following else num_offered
        match_length = match_length if num_offered else 0
        return Offer(len(self.own), automaton.tokens, end, num_offered, match_length)


@dataclass(slots=True)
class _Tenants:
    """The outputs of the most recently active tenants, at most `max_tenants` of them."""

    max_tenants: int
    max_tokens: int
    num_added: int = 0
    by_name: OrderedDict[str, TenantOutputs] = field(default_factory=OrderedDict)

    def find(self, tenant: str) -> TenantOutputs:
        outputs = self.by_name.get(tenant)
        if outputs is None:
            return NO_OUTPUTS
        self.by_name.move_to_end(tenant)
        return outputs

    def add(self, tenant: str, output: Sequence[int]) -> None:
        self.num_added += 1
        self.by_name.setdefault(tenant, TenantOutputs(self.max_tokens)).add(output, self.num_added)
        self.by_name.move_to_end(tenant)
        while len(self.by_name) > self.max_tenants:
            self.by_name.popitem(last=False)


class SuffixDrafter:
    """Drafts from suffix automata; adding a finished output costs microseconds per token."""

    is_free = True

    def __init__(
        self,
        name: str,
        max_draft_length: int,
        max_shared_tokens: int = 32768,
        max_tenants: int = 16,
        rule: SuffixRule = DEFAULT_RULE,
    ) -> None:
        self.name = name
        self.max_draft_length = max_draft_length
        self._rule = rule
        self._tenants = _Tenants(max_tenants, max_shared_tokens)
        self._sequences: dict[str, _Sequence] = {}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._synced(request).offer.draft(request.draft_length) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        """As the contract says; outputs that finish here are seen by later calls only."""
        outcomes = [
            self._synced(request).open_offers.take(len(request.tokens), request.finished)
            for request in requests
        ]
        finished = [request for request in requests if request.finished]
        for request in sorted(finished, key=lambda request: request.sequence_id):
            self._share(request)
        return outcomes

    def forget(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            self._sequences.pop(sequence_id, None)

    def _share(self, request: ScoreRequest) -> None:
        sequence = self._sequences[request.sequence_id]
        if not sequence.is_shared:
            sequence.is_shared = True
            self._tenants.add(request.tenant, request.tokens[request.num_prompt_tokens :])

    def _synced(self, request: DraftRequest | ScoreRequest) -> _Sequence:
        sequence = self._sequences.get(request.sequence_id)
        if sequence is None:
            sequence = self._sequences[request.sequence_id] = _Sequence(
                self._rule, self.max_draft_length
            )
        sequence.extend(request, self._tenants.find(request.tenant))
        return sequence
