"""What became of the drafts, told to the learners that chose them.

A chosen draft's outcome is known at once. A drafter that the decision wants evaluated is scored at
its position when the verified text settles it: a free one in every round, another in one call for
`_STRETCH` tokens of text, as that costs little more than a call for one of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from engine.counters import DrafterHindsight
from engine.drafters.drafter import Outcome as Scored
from engine.drafters.drafter import ScoreRequest
from engine.guarded_drafter import GuardedDrafter
from engine.hindsight import Evaluation, Hindsight
from engine.scheduler import Step
from engine.sequence import Sequence as LiveSequence
from policies.cost_model import CostModel
from policies.selector import Decision, Learner, Outcome

_STRETCH = 16  # tokens
_ANSWER_TOKENS = 256  # that a sequence may grow by before a drafter elsewhere answers
_ANSWER_ROUNDS = 8  # after a sequence's end in which drafters elsewhere are still heard of it


@dataclass(slots=True)
class _Watched:
    """A sequence's last learner, and the open evaluations by drafter and position."""

    learner: Learner
    open: dict[str, dict[int, Evaluation]] = field(default_factory=dict)


@dataclass(slots=True)
class _Ended:
    """A sequence of which a drafter elsewhere may still tell."""

    sequence: LiveSequence
    num_rounds_left: int = _ANSWER_ROUNDS


class Feedback:
    """Collects the outcomes of a round, and tells them at its end.

    Drafters elsewhere are not waited for: what has ended stays known to them and to its learner for
    a few rounds more, until they have told the rest.
    """

    def __init__(self, drafters: Mapping[str, GuardedDrafter], costs: CostModel) -> None:
        self._drafters = drafters
        self._costs = costs
        self._hindsight = Hindsight(drafters)
        self._watched: dict[str, _Watched] = {}
        self._ended: dict[str, _Ended] = {}
        self._outcomes: dict[int, tuple[Learner, list[Outcome]]] = {}

    @property
    def hindsight(self) -> dict[str, DrafterHindsight]:
        return self._hindsight.per_drafter

    def expect(self, sequence: LiveSequence, learner: Learner, decision: Decision) -> None:
        """Watches over a decision that `learner` has made for the sequence's next round."""
        watched = self._watched.get(sequence.id)
        if watched is None or watched.learner is not learner:
            watched = self._watched[sequence.id] = _Watched(learner)
        self._hindsight.count_decision()
        for name in decision.evaluated:
            if name in self._drafters:
                open_ = watched.open.setdefault(name, {})
                open_[len(sequence.tokens)] = Evaluation(decision)

    def note(self, step: Step, num_accepted: int, is_cut: bool) -> None:
        """What a decoding step's draft came to. One that was never made says nothing.

        Where the drafter itself stopped, the rest of what it was asked for counts as refused.
        """
        chosen = step.decision
        watched = self._watched.get(step.sequence.id)
        num_offered = len(step.draft) + step.num_given_up
        if watched is None or chosen.id < 0 or (chosen.drafter is not None and not num_offered):
            return
        for name in chosen.evaluated:
            for evaluation in islice(reversed(watched.open.get(name, {}).values()), 1):
                if evaluation.decision is chosen:
                    evaluation.num_chosen = num_accepted
        outcome = Outcome(
            chosen.id, chosen.table_version, chosen.drafter, num_offered, num_accepted, is_cut
        )
        self._tell(watched.learner, outcome)

    def conclude(self, going_on: Sequence[LiveSequence], ended: Sequence[LiveSequence]) -> None:
        """Scores what is settled and tells the learners; all then forget what is over.

        Free drafters hear of every ended sequence, as they may learn from it.
        """
        self.make_way(ended)
        earlier = [each.sequence for each in self._ended.values()]
        for drafter in self._drafters.values():
            due = [s for s in going_on if self._is_due(drafter, s)]
            last = [s for s in ended if self._hears_the_end(drafter, s)]
            if drafter.follows:
                last += [s for s in earlier if self._open(drafter, s)]
            if (due or last) and not drafter.is_masked:
                self._score(drafter, due, last)
        if ended:  # once all are scored
            for drafter in self._drafters.values():
                if not drafter.follows:
                    drafter.forget([sequence.id for sequence in ended])
        for learner, outcomes in self._outcomes.values():
            learner.observe(outcomes)
        self._outcomes.clear()
        for entry in self._ended.values():
            entry.num_rounds_left -= 1
        self._ended |= {sequence.id: _Ended(sequence) for sequence in ended}
        self._forget([each.sequence for each in self._ended.values() if self._is_over(each)])

    def make_way(self, coming: Iterable[LiveSequence]) -> None:
        """Before anything is done with `coming`: who had their names before is forgotten."""
        if self._ended:
            ids = {sequence.id for sequence in coming} & self._ended.keys()
            self._forget([self._ended[sequence_id].sequence for sequence_id in ids])

    def _is_over(self, ended: _Ended) -> bool:
        tells = [d for d in self._drafters.values() if d.follows and not d.is_masked]
        return ended.num_rounds_left <= 0 or not any(self._open(d, ended.sequence) for d in tells)

    def _forget(self, sequences: Sequence[LiveSequence]) -> None:
        """Drafters of one host share what it knows, so that they forget together."""
        if not sequences:
            return
        for drafter in self._drafters.values():
            if drafter.follows:
                drafter.forget([sequence.id for sequence in sequences])
        for sequence in sequences:
            del self._ended[sequence.id]
            watched = self._watched.pop(sequence.id, None)
            if watched is not None:
                watched.learner.forget([sequence.id])

    def drop(self, drafters: Iterable[str]) -> None:
        """These have nothing more to say of what was open."""
        for name in drafters:
            for watched in self._watched.values():
                watched.open.pop(name, None)

    def _tell(self, learner: Learner, outcome: Outcome) -> None:
        if outcome.drafter is not None:
            self._hindsight.hear(outcome.drafter)
        self._outcomes.setdefault(id(learner), (learner, []))[1].append(outcome)

    def _open(self, drafter: GuardedDrafter, sequence: LiveSequence) -> dict[int, Evaluation]:
        watched = self._watched.get(sequence.id)
        return watched.open.get(drafter.name, {}) if watched else {}

    def _hears_the_end(self, drafter: GuardedDrafter, sequence: LiveSequence) -> bool:
        if not drafter.is_free:
            return bool(self._open(drafter, sequence))
        return sequence.num_generated > 0 and sequence.may_use(drafter.name)

    def _is_due(self, drafter: GuardedDrafter, sequence: LiveSequence) -> bool:
        pending = self._open(drafter, sequence)
        if not pending or drafter.is_free:
            return bool(pending)
        settled = len(sequence.tokens) - drafter.max_draft_length
        return next(iter(pending)) + _STRETCH <= settled

    def _score(
        self, drafter: GuardedDrafter, due: Sequence[LiveSequence], last: Sequence[LiveSequence]
    ) -> None:
        requests = [score_request(sequence) for sequence in due]
        requests += [score_request(sequence, finished=True) for sequence in last]
        started = time.perf_counter()
        scored = drafter.score(requests)
        seconds = time.perf_counter() - started
        num_settled = 0
        for sequence, outcomes in zip([*due, *last], scored, strict=True):
            pending = self._open(drafter, sequence)
            for outcome in outcomes:
                evaluation = pending.pop(outcome.base_length, None)
                if evaluation is not None:
                    num_settled += 1
                    self._hindsight.compare(drafter.name, evaluation, outcome)
                    self._tell_evaluated(sequence, drafter.name, evaluation.decision, outcome)
            self._drop_settled(drafter, sequence, pending)
        self._costs.observe_evaluation(drafter.name, num_settled, seconds)
        self._hindsight.count_scoring(drafter.name, num_settled, seconds)

    def _tell_evaluated(
        self, sequence: LiveSequence, name: str, decision: Decision, scored: Scored
    ) -> None:
        outcome = Outcome(
            decision.id,
            decision.table_version,
            name,
            scored.num_offered,
            scored.accept_length,
            scored.censored,
        )
        self._tell(self._watched[sequence.id].learner, outcome)

    @staticmethod
    def _drop_settled(
        drafter: GuardedDrafter, sequence: LiveSequence, pending: dict[int, Evaluation]
    ) -> None:
        """Positions that were settled and not reported never will be."""
        last = len(sequence.tokens) - drafter.max_draft_length
        if drafter.follows:
            last -= _ANSWER_TOKENS
        for position in [position for position in pending if position < last]:
            del pending[position]


def score_request(sequence: LiveSequence, finished: bool = False) -> ScoreRequest:
    return ScoreRequest(
        sequence.id,
        sequence.request.tenant,
        sequence.tokens,
        sequence.num_prompt_tokens,
        sequence.request.sampling,
        finished,
        sequence.past,
    )
