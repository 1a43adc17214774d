"""Gets the drafts of a round: asks the selector, asks the drafters, believes nothing unchecked."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from engine.drafters.drafter import Draft, Drafter, DraftRequest, ScoreRequest
from engine.scheduler import Step
from engine.sequence import Sequence as LiveSequence
from policies.selector import PLAIN, Context, Decision, Selector

_MAX_FAILURES = 3  # in a row, then the breaker opens
_REST_ROUNDS = 1000  # rounds until an open breaker lets one draft through

logger = logging.getLogger(__name__)


class _PlainSelector:
    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        return [PLAIN] * len(contexts)


class _Breaker:
    """Masks a drafter that failed too often in a row, and tries it again after a rest."""

    def __init__(self) -> None:
        self.num_failures = 0
        self._num_in_row = 0
        self._closed_at = 0

    def is_open(self, round_number: int) -> bool:
        return self._num_in_row >= _MAX_FAILURES and round_number < self._closed_at

    def note(self, failed: bool, round_number: int) -> None:
        self._num_in_row = self._num_in_row + 1 if failed else 0
        self.num_failures += failed
        self._closed_at = round_number + _REST_ROUNDS


class Drafting:
    """The drafters of an engine and the selectors that choose among them."""

    def __init__(self, drafters: Sequence[Drafter], vocab_size: int) -> None:
        self._drafters = {drafter.name: drafter for drafter in drafters}
        self._vocab_size = vocab_size
        self._breakers = {name: _Breaker() for name in self._drafters}
        self._round = 0
        self._default: Selector = _PlainSelector()
        self._named: Mapping[str, Selector] = {}

    @property
    def num_failures(self) -> dict[str, int]:
        return {name: breaker.num_failures for name, breaker in self._breakers.items()}

    def use_selectors(self, default: Selector, named: Mapping[str, Selector]) -> None:
        self._default, self._named = default, named

    def draft(self, steps: Sequence[Step]) -> list[tuple[Step, str, tuple[int, ...]]]:
        """(step, drafter, tokens) for the decoding steps that get a draft this round."""
        self._round += 1
        steps = [step for step in steps if step.num_new == 1 == step.sequence.num_pending]
        limits = [self._limits(step.sequence) for step in steps]
        if not any(limits):
            return []
        offers = self._free_offers(steps, limits)
        decisions = self._decide(steps, limits, offers)
        asked: dict[str, list[int]] = defaultdict(list)
        chosen = []
        for i, decision in enumerate(decisions):
            if decision.drafter is None or decision.draft_length <= 0:
                continue
            offer = offers[i].get(decision.drafter)
            if offer is not None:
                tokens = offer.tokens[: decision.draft_length]
                chosen.append((steps[i], decision.drafter, tokens))
            elif decision.drafter in limits[i]:
                asked[decision.drafter].append(i)
        for name, indices in asked.items():
            lengths = [min(decisions[i].draft_length, limits[i][name]) for i in indices]
            drafts = self._ask(name, [steps[i] for i in indices], lengths)
            chosen += [(steps[i], name, d.tokens) for i, d in zip(indices, drafts, strict=True)]
        return [(step, name, tokens) for step, name, tokens in chosen if tokens]

    def finish(self, sequence: LiveSequence) -> None:
        """Tells the drafters that a sequence has ended; free ones may learn from it."""
        request = ScoreRequest(
            sequence.id,
            sequence.request.tenant,
            sequence.tokens,
            sequence.num_prompt_tokens,
            sequence.request.sampling,
            finished=True,
        )
        for name, drafter in self._drafters.items():
            try:
                try:
                    if drafter.is_free and sequence.num_generated and self._may_use(name, sequence):
                        drafter.score([request])
                finally:
                    drafter.forget([sequence.id])
            except Exception:
                logger.exception("drafter %s failed at the end of a sequence", name)
                self._breakers[name].note(True, self._round)

    def _limits(self, sequence: LiveSequence) -> dict[str, int]:
        """The longest draft each drafter may give this sequence now; masked ones are absent."""
        options = sequence.request.speculation
        longest = sequence.max_useful_draft
        if options.max_draft_length is not None:
            longest = min(longest, options.max_draft_length)
        if longest <= 0:
            return {}
        return {
            name: min(longest, drafter.max_draft_length)
            for name, drafter in self._drafters.items()
            if self._may_use(name, sequence) and not self._breakers[name].is_open(self._round)
        }

    @staticmethod
    def _may_use(name: str, sequence: LiveSequence) -> bool:
        allowed = sequence.request.speculation.drafters
        return allowed is None or name in allowed

    def _free_offers(
        self, steps: Sequence[Step], limits: Sequence[Mapping[str, int]]
    ) -> list[dict[str, Draft]]:
        offers: list[dict[str, Draft]] = [{} for _ in steps]
        for name, drafter in self._drafters.items():
            indices = [i for i, limit in enumerate(limits) if name in limit]
            if not drafter.is_free or not indices:
                continue
            lengths = [limits[i][name] for i in indices]
            drafts = self._ask(name, [steps[i] for i in indices], lengths)
            for i, draft in zip(indices, drafts, strict=True):
                offers[i][name] = draft
        return offers

    def _decide(
        self,
        steps: Sequence[Step],
        limits: Sequence[Mapping[str, int]],
        offers: Sequence[Mapping[str, Draft]],
    ) -> list[Decision]:
        by_selector: dict[str | None, list[int]] = defaultdict(list)
        for i, step in enumerate(steps):
            by_selector[step.sequence.request.speculation.selector].append(i)
        decisions = [PLAIN] * len(steps)
        for name, indices in by_selector.items():
            selector = self._named.get(name, self._default) if name else self._default
            contexts = [self._context(steps[i].sequence, limits[i], offers[i]) for i in indices]
            for i, decision in zip(indices, selector.choose(contexts), strict=True):
                decisions[i] = decision
        return decisions

    def _context(
        self, sequence: LiveSequence, limits: Mapping[str, int], offers: Mapping[str, Draft]
    ) -> Context:
        lengths = {
            name: len(offers[name].tokens) if name in offers else limit
            for name, limit in limits.items()
        }
        return Context(
            sequence.id,
            sequence.request.tenant,
            {name: length for name, length in lengths.items() if length},
            {name: draft.match_length for name, draft in offers.items()},
        )

    def _ask(self, name: str, steps: Sequence[Step], lengths: Sequence[int]) -> list[Draft]:
        """Drafts of one drafter; whatever is wrong with one, it becomes "no offer"."""
        requests = [
            DraftRequest(
                step.sequence.id,
                step.sequence.request.tenant,
                step.sequence.tokens,
                step.sequence.num_prompt_tokens,
                step.sequence.request.sampling,
                length,
            )
            for step, length in zip(steps, lengths, strict=True)
        ]
        none = [Draft(len(request.tokens)) for request in requests]
        try:
            drafts = self._drafters[name].draft(requests)
            complete = len(drafts) == len(requests)
        except Exception:
            logger.exception("drafter %s failed", name)
            complete = False
        if not complete:
            self._breakers[name].note(True, self._round)
            return none
        valid = [self._is_valid(d, r) for d, r in zip(drafts, requests, strict=True)]
        self._breakers[name].note(not all(valid), self._round)
        return [d if ok else n for d, ok, n in zip(drafts, valid, none, strict=True)]

    def _is_valid(self, draft: Draft, request: DraftRequest) -> bool:
        return (
            isinstance(draft, Draft)
            and isinstance(draft.tokens, tuple)
            and type(draft.match_length) is int
            and draft.base_length == len(request.tokens)
            and len(draft.tokens) <= request.draft_length
            and all(type(t) is int and 0 <= t < self._vocab_size for t in draft.tokens)
        )
