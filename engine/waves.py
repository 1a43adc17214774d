"""Drafts that are on their way, and the sequences that sit rounds out until theirs has come.

Meanwhile the others are verified. A round waits only where nothing else is at hand, or where one
step for all is cheaper; a drafter's own deadline bounds it. Where a drafter takes longer than that
and all sequences want it at once, half of them go on plainly, and two waves take turns from then.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.drafters.drafter import Draft, DraftRequest
from engine.guarded_drafter import GuardedDrafter
from engine.scheduler import Step
from policies.cost_model import CostModel, DraftTime
from policies.patience import Patience, saved_seconds
from policies.selector import Decision, Load

_LOOK_UP_S = 0.01  # a round that waits for a draft alone ends then, so that requests can come in


@dataclass(slots=True)
class _Asked:
    """`draft` is None until it has come."""

    drafter: str
    decision: Decision
    request: DraftRequest
    at_s: float
    draft: Draft | None = None


class Waves:
    """Not for drafters of this process: they answer at once."""

    def __init__(self, drafters: Mapping[str, GuardedDrafter], costs: CostModel) -> None:
        self._drafters = drafters
        self._costs = costs
        self._patience = Patience()
        self._asked: dict[str, _Asked] = {}

    def has(self, sequence_id: str) -> bool:
        """Whether the sequence has a draft that it has not got yet."""
        return sequence_id in self._asked

    def forget(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            self._asked.pop(sequence_id, None)

    def drop(self, drafters: Collection[str]) -> None:
        """Of these nothing comes any more; their sequences choose anew."""
        kept = {key: each for key, each in self._asked.items() if each.drafter not in drafters}
        self._asked = kept

    def clear(self) -> None:
        self._asked.clear()

    def ask(self, asked: Sequence[tuple[Step, DraftRequest]], num_others: int) -> None:
        """Begins to draft. `num_others` steps of the round could go on at once."""
        if not num_others and self._should_split(asked):
            asked = asked[: (len(asked) + 1) // 2]
        by_drafter: dict[str, list[tuple[Step, DraftRequest]]] = {}
        for step, request in asked:
            by_drafter.setdefault(str(step.decision.drafter), []).append((step, request))
        for name, parts in by_drafter.items():
            at_s = time.monotonic()
            if self._drafters[name].ask([request for _, request in parts]):
                for step, request in parts:
                    asked_one = _Asked(name, step.decision, request, at_s)
                    self._asked[step.sequence.id] = asked_one

    def collect(self, steps: Sequence[Step]) -> list[tuple[Step, tuple[int, ...]]]:
        """The drafts that have come, after waiting for more as long as that pays.

        Marks the steps that go on waiting.
        """
        awaited = [step for step in steps if step.decodes and self.has(step.sequence.id)]
        if not awaited:
            return []
        self._take(0.0)
        missing = self._missing(awaited)
        if len(missing) == len(steps):
            self._take(_LOOK_UP_S)
            missing = self._missing(awaited)
        while missing and len(missing) < len(steps):
            left_s = self._worth_waiting_s(steps, missing)
            if left_s <= 0.0:
                break
            self._take(left_s)
            missing = self._missing(awaited)
        for step in missing:
            step.waits = True
        return [self._claim(step) for step in awaited if not step.waits]

    def _missing(self, awaited: Sequence[Step]) -> list[Step]:
        return [step for step in awaited if self._asked[step.sequence.id].draft is None]

    def _claim(self, step: Step) -> tuple[Step, tuple[int, ...]]:
        asked = self._asked.pop(step.sequence.id)
        assert asked.draft is not None
        step.decision = asked.decision
        step.num_given_up = asked.draft.num_given_up(asked.request.draft_length)
        return step, asked.draft.tokens

    def _take(self, wait_s: float) -> None:
        """What has come; if nothing has, waits for the first to come, of any drafter."""
        was_awaited = wait_s > 0.0
        for name, drafter in self._drafters.items():
            wanted = {
                sequence_id: asked.request
                for sequence_id, asked in self._asked.items()
                if asked.drafter == name and asked.draft is None
            }
            drafts = drafter.take(wanted, wait_s) if wanted else {}
            for sequence_id, draft in drafts.items():
                self._asked[sequence_id].draft = draft
            if drafts:
                self._note_time(name, [self._asked[each] for each in drafts], was_awaited)
            wait_s = 0.0 if wanted else wait_s

    def _note_time(self, name: str, answered: Sequence[_Asked], was_awaited: bool) -> None:
        drafts = [asked.draft for asked in answered if asked.draft is not None]
        if not any(draft.is_made for draft in drafts):
            return
        lengths = [len(draft.tokens) for draft in drafts]
        seconds = time.monotonic() - min(asked.at_s for asked in answered)
        if was_awaited:
            self._patience.came(name, seconds)
        else:
            self._patience.was_there(name, seconds)
        time_taken = DraftTime(name, len(lengths), max(lengths), sum(lengths), seconds)
        self._costs.observe_draft(time_taken)

    def _worth_waiting_s(self, steps: Sequence[Step], missing: Sequence[Step]) -> float:
        """For any of the missing drafts; less than 0 if for none."""
        late = {step.sequence.id for step in missing}
        ready = [step for step in steps if step.sequence.id not in late]
        saved_s = saved_seconds(self._costs, self._load(ready), self._load(missing))
        now_s, longest_s = time.monotonic(), 0.0
        for name in {self._asked[each].drafter for each in late}:
            at_s = max(self._asked[each].at_s for each in late if self._asked[each].drafter == name)
            wait_s = self._patience.wait_s(name, saved_s)
            if 0.0 < wait_s <= now_s - at_s:
                self._patience.is_late(name, now_s - at_s)
            longest_s = max(longest_s, at_s + wait_s - now_s)
        return longest_s

    def _should_split(self, asked: Sequence[tuple[Step, DraftRequest]]) -> bool:
        if len(asked) < 2:
            return False
        half = len(asked) // 2
        first, second = (
            Load(
                len(part),
                sum(step.num_new + request.draft_length for step, request in part),
                sum(len(request.tokens) for _, request in part),
            )
            for part in (asked[:half], asked[half:])
        )
        saved_s = saved_seconds(self._costs, first, second)
        names = {str(step.decision.drafter) for step, _ in asked}
        return all(self._patience.wait_s(name, saved_s) == 0.0 for name in names)

    def _load(self, steps: Sequence[Step]) -> Load:
        """With the drafts that are there or asked for."""
        asked = [self._asked.get(step.sequence.id) for step in steps]
        lengths = [each.request.draft_length if each else 0 for each in asked]
        return Load(
            sum(step.decodes for step in steps),
            sum(step.num_new for step in steps) + sum(lengths),
            sum(len(step.sequence.tokens) for step in steps),
        )
