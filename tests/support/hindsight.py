"""What each fixed arm would do, from the scores of drafters that never drafted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from engine.request import GenerationRequest
from policies.selector import Context, Decision, Outcome

VERSION = 7


class Watching:
    """A learner that decodes plainly and has `drafters` scored at every position."""

    def __init__(self, requests: Sequence[GenerationRequest], drafters: tuple[str, ...]) -> None:
        self._drafters = drafters
        self._next = {each.sequence_id: len(each.prompt_ids) + 1 for each in requests}
        self._decided: list[tuple[str, int]] = []  # sequence and position, by decision id
        self.forgotten: list[str] = []
        self.outcomes: dict[tuple[str, str | None], dict[int, Outcome]] = defaultdict(dict)
        """By sequence and drafter, then by position."""

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        return [self._decide(context.sequence_id) for context in contexts]

    def _decide(self, sequence_id: str) -> Decision:
        self._decided.append((sequence_id, self._next[sequence_id]))
        self._next[sequence_id] += 1
        number = len(self._decided) - 1
        return Decision(id=number, table_version=VERSION, evaluated=self._drafters)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            assert outcome.table_version == VERSION
            sequence_id, position = self._decided[outcome.decision_id]
            known = self.outcomes[sequence_id, outcome.drafter]
            assert position not in known, "each outcome is told once"
            known[position] = outcome

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self.forgotten += sequence_ids

    def predicted_rounds(
        self, asked: GenerationRequest, drafter: str, draft_length: int, num_tokens: int
    ) -> list[int]:
        """What each round of this arm emits until there are `num_tokens`, `max_tokens` at most.

        The first token is the prefill's; where nothing was scored no draft can be useful.
        """
        outcomes: Mapping[int, Outcome] = self.outcomes[asked.sequence_id, drafter]
        first = len(asked.prompt_ids)
        rounds, position, end = [1], first + 1, first + num_tokens
        while position < end:
            useful = first + asked.max_tokens - position - 1
            accepted = outcomes[position].accept_length if position in outcomes else 0
            emitted = min(accepted, draft_length, useful) + 1
            rounds.append(min(emitted, end - position))
            position += rounds[-1]
        return rounds
