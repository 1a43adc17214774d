"""Runs a selector over recorded requests, `batch` of them at a time, and counts tokens and seconds.

Outcomes of drafters that were not chosen come when the text that settles them has been verified.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.replay_traces import Trace
from policies.arms import Arms
from policies.prices import Prices
from policies.selector import Context, Decision, Learner, Load, Outcome, Selector


@dataclass(frozen=True, slots=True)
class Setting:
    """`is_context_late`: contexts are those of the round before. `pays_evaluations`: scoring
    drafters that were not chosen costs seconds."""

    arms: Arms
    prices: Prices
    batch: int
    is_context_late: bool = False
    pays_evaluations: bool = True

    @property
    def load(self) -> Load:
        return Load(self.batch, self.batch, 0)


@dataclass(slots=True)
class Progress:
    """Tokens and seconds so far; `curve` holds both after each step."""

    num_tokens: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.seconds


@dataclass(slots=True)
class _Running:
    """A request being decoded; `waiting` outcomes are settled at their positions."""

    id: str
    trace: Trace
    position: int = 0
    before: int = 0  # where the last round started
    waiting: list[tuple[int, Outcome]] = field(default_factory=list)

    def context(self, load: Load, is_late: bool) -> Context:
        trace, j = self.trace, self.position
        seen = self.before if is_late else j
        offered = {name: int(each[j]) for name, each in trace.offered.items()}
        return Context(
            self.id,
            trace.domain,
            {name: length for name, length in offered.items() if length},
            {name: int(each[seen]) for name, each in trace.matches.items()},
            {name: int(each[seen]) for name, each in trace.streaks.items()},
            load,
        )

    def outcome(self, decision: Decision, drafter: str, num_offered: int) -> Outcome:
        accepted = min(int(self.trace.accepted[drafter][self.position]), num_offered)
        reaches_end = self.position + accepted >= self.trace.num_tokens
        is_cut = reaches_end and accepted < num_offered
        return Outcome(decision.id, decision.table_version, drafter, num_offered, accepted, is_cut)

    def settled(self) -> list[Outcome]:
        due = [outcome for at, outcome in self.waiting if at <= self.position]
        self.waiting = [entry for entry in self.waiting if entry[0] > self.position]
        return due


def simulate(traces: Sequence[Trace], selector: Selector, setting: Setting) -> Progress:
    """Decodes all of `traces`, in order; each finished request makes room for the next."""
    progress = Progress()
    queue = deque(_Running(str(i), trace) for i, trace in enumerate(traces))
    running: list[_Running] = []
    load = setting.load
    while queue or running:
        while queue and len(running) < setting.batch:
            running.append(queue.popleft())
        contexts = [each.context(load, setting.is_context_late) for each in running]
        outcomes: list[Outcome] = []
        for each, decision in zip(running, selector.choose(contexts), strict=True):
            outcomes += _step(each, decision, setting, progress)
        ended = [each for each in running if each.position >= each.trace.num_tokens]
        running = [each for each in running if each.position < each.trace.num_tokens]
        progress.curve.append((progress.num_tokens, progress.seconds))
        if isinstance(selector, Learner):
            selector.observe(outcomes)
            selector.forget(each.id for each in ended)
    return progress


def _step(
    each: _Running, decision: Decision, setting: Setting, progress: Progress
) -> Iterable[Outcome]:
    """One round of one request; what is known after it."""
    seconds = setting.prices.seconds(setting.load)
    drafter = setting.arms.index[decision.drafter]
    progress.seconds += float(seconds[drafter, decision.draft_length])
    accepted = 0
    outcomes = [Outcome.of(decision, 0)]
    if decision.drafter is not None:
        outcomes = [each.outcome(decision, decision.drafter, decision.draft_length)]
        accepted = outcomes[0].accept_length
    for name in decision.evaluated:
        longest = min(int(each.trace.offered[name][each.position]), setting.arms.max_length)
        outcome = each.outcome(decision, name, longest)
        each.waiting.append(
            (min(each.position + outcome.accept_length + 1, each.trace.num_tokens), outcome)
        )
        if setting.pays_evaluations:
            price = setting.prices.evaluation_seconds(setting.load)
            progress.seconds += float(price[setting.arms.index[name]])
    emitted = min(accepted + 1, each.trace.num_tokens - each.position)
    progress.num_tokens += emitted
    each.before, each.position = each.position, each.position + emitted
    return outcomes + each.settled()
