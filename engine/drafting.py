"""The drafts of a round: contexts to the selectors, their decisions to the drafters."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from engine.counters import DrafterHindsight, DrafterState
from engine.drafters.drafter import Draft, Drafter, DraftRequest
from engine.feedback import Feedback, score_request
from engine.guarded_drafter import GuardedDrafter
from engine.scheduler import Step
from engine.sequence import Sequence as LiveSequence
from engine.waves import Waves
from policies.cost_model import CostModel, DraftTime
from policies.selector import Context, Learner, Load, ReadsConfidences, Selector

Limits = Mapping[str, int]
Offers = Mapping[str, Draft]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one sequence's drafters before anything is decided."""

    limits: Limits
    offers: Offers
    confidences: Mapping[str, float]


class Drafting:
    """The drafters of an engine, and the selectors that choose among them and learn."""

    def __init__(self, drafters: Sequence[Drafter], vocab_size: int, costs: CostModel) -> None:
        self._vocab_size = vocab_size
        self._drafters = {d.name: GuardedDrafter(d, vocab_size) for d in drafters}
        self._costs = costs
        self._feedback = Feedback(self._drafters, costs)
        self._waves = Waves(self._drafters, costs)
        self._default: Selector | None = None
        self._named: Mapping[str, Selector] = {}
        self._reads_confidences = False
        self._streaks: dict[str, tuple[str, int]] = {}

    @property
    def num_failures(self) -> dict[str, int]:
        return {name: drafter.num_failures for name, drafter in self._drafters.items()}

    @property
    def states(self) -> dict[str, DrafterState]:
        return {name: drafter.state for name, drafter in self._drafters.items()}

    @property
    def hindsight(self) -> dict[str, DrafterHindsight]:
        return self._feedback.hindsight

    def use_drafters(self, drafters: Sequence[Drafter]) -> None:
        """These from now on. One that was there, being the same object, stays as it is; whatever
        was open with one that goes is dropped."""
        before = dict(self._drafters)
        self._drafters.clear()  # others hold it, too
        for drafter in drafters:
            known = before.get(drafter.name)
            stays = known is not None and known.guards(drafter)
            guarded = known if known and stays else GuardedDrafter(drafter, self._vocab_size)
            self._drafters[drafter.name] = guarded
        gone = {n for n, guarded in before.items() if self._drafters.get(n) is not guarded}
        self._waves.drop(gone)
        self._feedback.drop(gone)
        self._streaks = {k: streak for k, streak in self._streaks.items() if streak[0] not in gone}

    def disable(self, names: Collection[str]) -> None:
        """These from now on, and no others."""
        for name, drafter in self._drafters.items():
            drafter.is_enabled = name not in names

    def use_selectors(self, default: Selector | None, named: Mapping[str, Selector]) -> None:
        """Who chooses: `default`, or the one that a request names. Without a default, nobody."""
        self._default, self._named = default, named
        self._reads_confidences = any(
            isinstance(each, ReadsConfidences) and each.reads_confidences
            for each in (default, *named.values())
        )

    def draft(self, steps: Sequence[Step], load: Load) -> list[tuple[Step, tuple[int, ...]]]:
        """Decides for every decoding step; gives those that get a draft this round, and drafts.

        Those whose draft is on its way are marked as waiting, if the round need not wait for them.
        """
        for drafter in self._drafters.values():
            drafter.pass_round()
        self._feedback.make_way(step.sequence for step in steps)
        if self._default is None:
            self._waves.clear()
            return []
        self._send_ahead([step.sequence for step in steps])
        drafts = self._begin(self._default, steps, load)
        drafts += self._waves.collect(steps)
        return [(step, tokens) for step, tokens in drafts if tokens]

    def _begin(
        self, default: Selector, all_steps: Sequence[Step], load: Load
    ) -> list[tuple[Step, tuple[int, ...]]]:
        """Decides, asks, and gives the drafts that are there at once."""
        steps = [s for s in all_steps if s.decodes and not self._waves.has(s.sequence.id)]
        limits = [self._limits(step.sequence) for step in steps]
        if not any(limits):
            return []
        offers = self._free_offers(steps, limits)
        seen = [
            Seen(*each) for each in zip(limits, offers, self._forecasts(steps, limits), strict=True)
        ]
        self._decide(default, steps, seen, load)
        asked: dict[str, list[int]] = defaultdict(list)
        drafts = []
        elsewhere: list[tuple[Step, DraftRequest]] = []
        for i, step in enumerate(steps):
            name, length = step.decision.drafter, step.decision.draft_length
            if name is None or length <= 0:
                continue
            if name in offers[i]:
                drafts.append((step, offers[i][name].tokens[:length]))
            elif name in limits[i]:
                asked[name].append(i)
        for name, indices in asked.items():
            lengths = [min(steps[i].decision.draft_length, limits[i][name]) for i in indices]
            asking = [steps[i] for i in indices]
            if self._drafters[name].follows:
                elsewhere += zip(asking, _requests(asking, lengths), strict=True)
                continue
            answers = self._ask(name, asking, lengths)
            for step, length, answer in zip(asking, lengths, answers, strict=True):
                step.num_given_up = answer.num_given_up(length)
                drafts.append((step, answer.tokens))
        self._waves.ask(elsewhere, len(all_steps) - len(elsewhere))
        return drafts

    def note(self, step: Step, num_accepted: int, is_cut: bool) -> None:
        """What became of a decoding step's draft. `is_cut`: the sequence ended inside of it."""
        self._feedback.note(step, num_accepted, is_cut)
        self._note_streak(step, num_accepted)

    def conclude(self, going_on: Sequence[LiveSequence], ended: Sequence[LiveSequence]) -> None:
        """The end of a round: the selectors learn, and what has `ended` is forgotten."""
        self._feedback.conclude(going_on, ended)
        self._waves.forget([sequence.id for sequence in ended])
        for sequence in ended:
            self._streaks.pop(sequence.id, None)

    def _send_ahead(self, sequences: Sequence[LiveSequence]) -> None:
        """What was verified until now, to drafters elsewhere; from a sequence's first round on."""
        speculating = [s for s in sequences if s.request.speculation.max_draft_length != 0]
        for name, drafter in self._drafters.items():
            if drafter.follows:
                drafter.follow([score_request(s) for s in speculating if s.may_use(name)])

    def _limits(self, sequence: LiveSequence) -> Limits:
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
            if sequence.may_use(name) and not drafter.is_masked
        }

    def _free_offers(self, steps: Sequence[Step], limits: Sequence[Limits]) -> list[Offers]:
        offers: list[dict[str, Draft]] = [{} for _ in steps]
        for name, drafter in self._drafters.items():
            indices = [i for i, limit in enumerate(limits) if name in limit]
            if not drafter.is_free or not indices:
                continue
            lengths = [limits[i][name] for i in indices]
            requests = _requests([steps[i] for i in indices], lengths)
            for i, draft in zip(indices, drafter.draft(requests), strict=True):
                offers[i][name] = draft
        return list(offers)

    def _forecasts(self, steps: Sequence[Step], limits: Sequence[Limits]) -> list[dict[str, float]]:
        """By sequence and drafter, if a selector reads them."""
        found: list[dict[str, float]] = [{} for _ in steps]
        if not self._reads_confidences:
            return found
        for name, drafter in self._drafters.items():
            indices = [i for i, limit in enumerate(limits) if name in limit]
            requests = _requests([steps[i] for i in indices], [1] * len(indices))
            chances = drafter.forecast(requests) if indices else []
            for i, chance in zip(indices, chances, strict=True):
                if chance is not None:
                    found[i][name] = chance
        return found

    def _decide(
        self,
        default: Selector,
        steps: Sequence[Step],
        seen: Sequence[Seen],
        load: Load,
    ) -> None:
        by_selector: dict[str | None, list[int]] = defaultdict(list)
        for i, step in enumerate(steps):
            by_selector[step.sequence.request.speculation.selector].append(i)
        for name, indices in by_selector.items():
            selector = self._named.get(name, default) if name else default
            contexts = [self._context(steps[i].sequence, seen[i], load) for i in indices]
            learner = selector if isinstance(selector, Learner) else None
            for i, decision in zip(indices, selector.choose(contexts), strict=True):
                steps[i].decision = decision
                if learner is not None:
                    self._feedback.expect(steps[i].sequence, learner, decision)

    def _context(self, sequence: LiveSequence, seen: Seen, load: Load) -> Context:
        limits, offers = seen.limits, seen.offers
        lengths = {
            name: len(offers[name].tokens) if name in offers else limit
            for name, limit in limits.items()
        }
        streaks = {name: draft.streak for name, draft in offers.items()}
        if sequence.id in self._streaks:
            name, streak = self._streaks[sequence.id]
            streaks[name] = streak
        return Context(
            sequence.id,
            sequence.request.tenant,
            {name: length for name, length in lengths.items() if length},
            {name: draft.match_length for name, draft in offers.items()},
            streaks,
            load,
            seen.confidences,
        )

    def _note_streak(self, step: Step, num_accepted: int) -> None:
        """A drafter that is not free is known to have predicted what it drafted, if it did."""
        known = self._streaks.pop(step.sequence.id, None)
        if step.drafter is None or self._drafters[step.drafter].is_free:
            return
        before = known[1] if known is not None and known[0] == step.drafter else 0
        streak = before + num_accepted if num_accepted == len(step.draft) else 0
        self._streaks[step.sequence.id] = (step.drafter, streak)

    def _ask(self, name: str, steps: Sequence[Step], lengths: Sequence[int]) -> list[Draft]:
        """Drafts that cost time, which is measured."""
        requests = _requests(steps, lengths)
        started = time.perf_counter()
        drafts = self._drafters[name].draft(requests)
        seconds = time.perf_counter() - started
        if any(draft.is_made for draft in drafts):
            sizes = [len(draft.tokens) for draft in drafts]
            call = DraftTime(name, len(steps), max(sizes), sum(sizes), seconds)
            self._costs.observe_draft(call)
        return drafts


def _requests(steps: Sequence[Step], lengths: Sequence[int]) -> list[DraftRequest]:
    return [
        DraftRequest(
            step.sequence.id,
            step.sequence.request.tenant,
            step.sequence.tokens,
            step.sequence.num_prompt_tokens,
            step.sequence.request.sampling,
            length,
            step.sequence.past,
        )
        for step, length in zip(steps, lengths, strict=True)
    ]
