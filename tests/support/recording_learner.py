"""A learner that keeps what it hears, and a drafter that knows the text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count

from tiny_models import run_all, tiny_engine

from engine.drafters.drafter import Draft, Drafter, DraftRequest, ScoreRequest
from engine.drafters.drafter import Outcome as Scored
from engine.engine import Engine
from engine.request import GenerationRequest
from policies.selector import Context, Decision, Outcome

FOREVER = GenerationRequest("a", (1, 2, 3), 40, ignore_eos=True)


class Recording:
    """A learner that always decides the same, and keeps what it hears."""

    def __init__(self, arm: str | None, draft_length: int, evaluated: Sequence[str] = ()) -> None:
        self._ids = count()
        self._arm = (arm, draft_length, tuple(evaluated))
        self.contexts: list[Context] = []
        self.heard: list[Outcome] = []
        self.forgotten: list[str] = []

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        self.contexts += contexts
        name, length, evaluated = self._arm
        return [Decision(name, length, 1.0, 3, next(self._ids), evaluated) for _ in contexts]

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        assert outcomes, "nothing to say is not said"
        self.heard += outcomes

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self.forgotten += sequence_ids


class Oracle:
    """Drafts `text` from where the sequence is, and counts how it is asked to score."""

    is_free = False
    max_draft_length = 4

    def __init__(self, text: Sequence[int], num_wrong: int = 0) -> None:
        self.name = "oracle"
        self._text = list(text)
        self._num_wrong = num_wrong
        self.scored_at: list[int] = []
        self.failing: Callable[[], list[Scored]] | None = None

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._draft(each) for each in requests]

    def _draft(self, asked: DraftRequest) -> Draft:
        j = len(asked.tokens)
        tokens = self._text[j : j + asked.draft_length]
        wrong = [(token + 1) % 50 for token in tokens[len(tokens) - self._num_wrong :]]
        return Draft(j, tuple(tokens[: len(tokens) - self._num_wrong] + wrong))

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Scored]]:
        self.scored_at += [len(each.tokens) for each in requests]
        if self.failing is not None:
            return [self.failing() for _ in requests]
        first = requests[0].num_prompt_tokens
        return [[Scored(j, 4, 4) for j in range(first, len(each.tokens) - 4)] for each in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        pass


def text_of(asked: GenerationRequest) -> list[int]:
    emissions = run_all(tiny_engine(), [asked])[asked.sequence_id]
    return [*asked.prompt_ids, *(token for each in emissions for token in each.token_ids)]


def run(
    drafters: Sequence[Drafter], learner: Recording, asked: GenerationRequest = FOREVER
) -> Engine:
    engine = tiny_engine(drafters)
    engine.use_selectors(learner, {})
    run_all(engine, [asked])
    return engine
