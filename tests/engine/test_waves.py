"""Sequences sit rounds out until their draft has come; a round waits only as long as that pays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from tiny_models import LetterText, ids_of, run_all, tiny_engine, tiny_model_drafter
from tiny_requests import request

from engine.answer_text import AnswerText
from engine.drafters.drafter import Draft, DraftRequest, Follower, Outcome, ScoreRequest
from engine.drafting import Drafting
from engine.engine import Engine
from engine.request import GenerationRequest
from engine.scheduler import Step
from engine.sequence import Sequence as LiveSequence
from policies.cost_model import CostModel
from policies.fixed import FixedSelector
from policies.selector import Context, Decision, Load
from policies.step_curve import StepTime

STEP_S = 1.0  # of any number of tokens, where waiting for the others saves a whole step


@dataclass
class Clock:
    """Stands still but for what waits for it."""

    now_s: float = 0.0

    def monotonic(self) -> float:
        return self.now_s


@dataclass
class Elsewhere:
    """Drafts ones, `takes_s` after it was asked."""

    clock: Clock
    takes_s: float
    name: str = "d"
    is_free: bool = False
    is_away: bool = False
    max_draft_length: int = 4
    asked: list[list[str]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    due: dict[str, tuple[float, Draft]] = field(default_factory=dict)
    broken: str = ""

    def follow(self, sequences: Sequence[ScoreRequest]) -> None:
        pass

    def ask(self, requests: Sequence[DraftRequest]) -> None:
        if self.broken == "ask":
            raise RuntimeError("broken")
        self.asked.append([request.sequence_id for request in requests])
        for each in requests:
            draft = Draft(len(each.tokens), (1,) * each.draft_length)
            self.due[each.sequence_id] = (self.clock.now_s + self.takes_s, draft)

    def take(self, wait_s: float) -> dict[str, Draft]:
        if self.broken == "take":
            raise RuntimeError("broken")
        if self.due and wait_s > 0.0:
            first_s = min(due_s for due_s, _ in self.due.values())
            wait_s = min(wait_s, max(0.0, first_s - self.clock.now_s))
            self.clock.now_s += wait_s
            self.waited.append(wait_s)
        come = [name for name, (due_s, _) in self.due.items() if due_s <= self.clock.now_s]
        return {name: self.due.pop(name)[1] for name in come}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        raise AssertionError("it is asked, and takes its time")

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        return [[] for _ in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            self.due.pop(sequence_id, None)


class ByName:
    """The drafter `d` for sequences whose name says so, nobody for the others."""

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        return [
            Decision("d", 4) if c.sequence_id.startswith("d") and c.draft_lengths else Decision()
            for c in contexts
        ]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("engine.waves.time", clock)
    return clock


class World:
    """A round after another over live sequences, whose steps take as long as `seconds` says."""

    def __init__(
        self, clock: Clock, drafter: Elsewhere, seconds: Callable[[int], float] = lambda _: STEP_S
    ) -> None:
        self.clock, self.drafter, self.seconds = clock, drafter, seconds
        costs = CostModel()
        for num_tokens in (1, 2, 4, 8, 16, 32, 64):
            costs.observe_step(StepTime(num_tokens, 1, num_tokens, seconds(num_tokens)), 0)
        self.drafting = Drafting([drafter], 50, costs)
        self.drafting.use_selectors(ByName(), {})
        self.live: dict[str, LiveSequence] = {}

    def add(self, *names: str) -> None:
        for name in names:
            asked = GenerationRequest(name, (1, 2, 3), 10**6, ignore_eos=True)
            text = AnswerText(LetterText().detokenizer(), ())
            self.live[name] = LiveSequence(asked, text, (), 10**6)
            self.live[name].num_computed = 2

    def round(self) -> tuple[list[str], list[str]]:
        """Who got a draft, and who waits; the others, and those with a draft, go on by a token."""
        steps = [Step(sequence, 1) for sequence in self.live.values()]
        load = Load(len(steps), len(steps), 0)
        drafts = self.drafting.draft(steps, load)
        going = [step for step in steps if not step.waits]
        if going:
            self.clock.now_s += self.seconds(len(going) + sum(len(t) for _, t in drafts))
        for step in going:
            step.sequence.append(5)
            step.sequence.num_computed += 1
        waiting = [step.sequence.id for step in steps if step.waits]
        return sorted(step.sequence.id for step, _ in drafts), waiting


def test_a_drafter_elsewhere_is_one() -> None:
    assert isinstance(Elsewhere(Clock(), 0.0), Follower)


def test_who_waits_sits_out_and_the_others_go_on(clock: Clock) -> None:
    drafter = Elsewhere(clock, 1.5)
    world = World(clock, drafter, seconds=lambda tokens: float(tokens))  # nothing saved by waiting
    world.add("d", "plain")
    lengths = [(3, 3)]
    for _ in range(3):
        drafted, waiting = world.round()
        lengths.append((len(world.live["d"].tokens), len(world.live["plain"].tokens)))
        if drafted:
            break
        assert waiting == ["d"]
    assert drafted == ["d"]
    assert drafter.asked == [["d"]]
    assert lengths[-1][1] > lengths[-1][0]
    assert drafter.waited == []


def test_a_round_waits_for_a_draft_where_one_step_is_cheaper_than_two(clock: Clock) -> None:
    drafter = Elsewhere(clock, 0.3 * STEP_S)
    world = World(clock, drafter)
    world.add("d", "plain")
    for _ in range(5):
        assert world.round() == (["d"], [])
    assert sum(drafter.waited) == pytest.approx(5 * 0.3 * STEP_S)


def test_a_drafter_that_takes_longer_than_waiting_saves_is_tried_now_and_then(clock: Clock) -> None:
    drafter = Elsewhere(clock, 1.7 * STEP_S)
    world = World(clock, drafter)
    world.add("d", "plain")
    for _ in range(300):
        world.round()
    assert 1 <= len(drafter.waited) <= 30
    drafter.takes_s, before = 0.1 * STEP_S, len(drafter.waited)
    for _ in range(300):
        world.round()
    assert len(drafter.waited) - before > 100, "once it is faster, it is waited for again"


def test_with_nothing_else_at_hand_a_round_waits_and_ends_now_and_then(clock: Clock) -> None:
    drafter = Elsewhere(clock, 0.035)
    world = World(clock, drafter)
    world.add("d")
    rounds = [world.round() for _ in range(4)]
    assert rounds == [([], ["d"])] * 3 + [(["d"], [])]
    assert clock.now_s == pytest.approx(0.035 + STEP_S)


def test_a_slow_drafter_s_sequences_take_turns(clock: Clock) -> None:
    """Half of the tokens, half of the time: two waves keep the target at work all the time."""
    drafter = Elsewhere(clock, 3.0)
    world = World(clock, drafter, seconds=lambda tokens: 0.2 * tokens)
    world.add(*(f"d{i}" for i in range(8)))
    while clock.now_s < 100.0:
        world.round()
    idle_s, started_s = sum(drafter.waited), clock.now_s
    while clock.now_s < 200.0:
        world.round()
    assert sum(drafter.waited) - idle_s < 0.1 * (clock.now_s - started_s)
    assert {len(asked) for asked in drafter.asked[-4:]} != {8}


@pytest.mark.parametrize("broken", ["ask", "take"])
def test_a_drafter_that_breaks_costs_its_draft_and_nobody_waits(clock: Clock, broken: str) -> None:
    drafter = Elsewhere(clock, 0.1, broken=broken)
    world = World(clock, drafter)
    world.add("d", "plain")
    assert world.round() == ([], [])
    assert world.drafting.num_failures == {"d": 1}


def test_what_ended_or_was_switched_off_waits_no_more(clock: Clock) -> None:
    drafter = Elsewhere(clock, 1e9)
    world = World(clock, drafter, seconds=lambda tokens: float(tokens))
    world.add("d", "d2", "plain")
    assert world.round()[1] == ["d", "d2"]
    world.drafting.conclude([], [world.live.pop("d2")])
    world.add("d2")
    assert world.round()[1] == ["d", "d2"]
    assert drafter.asked == [["d", "d2"], ["d2"]]
    world.drafting.use_selectors(None, {})
    assert world.round() == ([], [])


class Sometimes:
    """A drafter of this process that answers `delay` calls of `take` later."""

    is_away = False

    def __init__(self, delay: int) -> None:
        self._drafter = tiny_model_drafter("d", 8)
        self.name, self.is_free, self.max_draft_length = "d", False, 8
        self._delay = delay
        self._due: dict[str, tuple[int, Draft]] = {}
        self.score, self.forget, self.draft = (
            self._drafter.score,
            self._drafter.forget,
            self._drafter.draft,
        )

    def follow(self, sequences: Sequence[ScoreRequest]) -> None:
        pass

    def ask(self, requests: Sequence[DraftRequest]) -> None:
        drafts = self._drafter.draft(requests)
        for i, (each, draft) in enumerate(zip(requests, drafts, strict=True)):
            self._due[each.sequence_id] = (self._delay + i % 3, draft)

    def take(self, wait_s: float) -> dict[str, Draft]:
        self._due = {key: (calls - 1, draft) for key, (calls, draft) in self._due.items()}
        come = [key for key, (calls, _) in self._due.items() if calls < 0]
        return {key: self._due.pop(key)[1] for key in come}


REQUESTS = [request(i, (0.0, 0.7, 1.0)[i % 3], max_tokens=40) for i in range(9)]


@pytest.fixture(scope="module")
def plain() -> dict[str, tuple[int, ...]]:
    return {name: ids_of(found) for name, found in run_all(tiny_engine(), REQUESTS).items()}


@pytest.mark.parametrize("delay", [0, 1, 4])
def test_waves_change_no_token(delay: int, plain: dict[str, tuple[int, ...]]) -> None:
    engine: Engine = tiny_engine([Sometimes(delay)], num_kv_tokens=128)
    engine.use_selectors(FixedSelector("d", 4), {})
    found = run_all(engine, REQUESTS)
    assert {name: ids_of(emissions) for name, emissions in found.items()} == plain
    counters = engine.counters()
    assert counters.num_drafter_failures == {"d": 0}
    assert counters.per_drafter["d"].num_accepted_tokens > 0
    assert counters.num_preemptions > 0, "waiting and preemption should meet"
