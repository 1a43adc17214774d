"""What a drafter would have had accepted at every position of a text, and the rounds from that.

The target's text does not depend on who drafts, so that one plain decoding judges any number of
drafters and draft lengths, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.drafters.drafter import Drafter, Outcome, ScoreRequest
from engine.request import SamplingParams
from training.corpus import Text


@dataclass(frozen=True, slots=True)
class Scored:
    """A text's outcomes by position."""

    text: Text
    outcomes: Mapping[int, Outcome]

    def num_rounds(self, draft_length: int) -> int:
        """Target forwards for all but the answer's first token, which the prefill gives."""
        position, end, count = self.text.num_prompt_tokens + 1, len(self.text.tokens), 0
        while position < end:
            known = self.outcomes.get(position)
            position += min(known.accept_length, draft_length) + 1 if known is not None else 1
            count += 1
        return count

    @property
    def num_tokens(self) -> int:
        return self.text.num_answer_tokens - 1


def score(drafter: Drafter, texts: Sequence[Text], tenant: str) -> list[Scored]:
    """All of them, one after the other, as answers of one tenant."""
    found = []
    for number, text in enumerate(texts):
        name = f"{tenant} {number}"
        sampling = SamplingParams(temperature=text.temperature, seed=text.seed)
        size, past = text.num_prompt_tokens, text.past
        request = ScoreRequest(name, tenant, text.tokens, size, sampling, finished=True, past=past)
        (outcomes,) = drafter.score([request])
        drafter.forget([name])
        found.append(Scored(text, {outcome.base_length: outcome for outcome in outcomes}))
    return found


def mean_acceptance_length(scored: Sequence[Scored], draft_length: int) -> float:
    """Tokens by round, bonus included, over all texts together; plain decoding is 1."""
    num_rounds = sum(each.num_rounds(draft_length) for each in scored)
    return sum(each.num_tokens for each in scored) / max(1, num_rounds)


def acceptance_by_depth(scored: Sequence[Scored], draft_length: int) -> list[float]:
    """The share of drafts whose token at depth 1, 2, .. is accepted if those before it are."""
    outcomes = [outcome for each in scored for outcome in each.outcomes.values()]
    shares = []
    for depth in range(1, draft_length + 1):
        at_risk = [
            outcome
            for outcome in outcomes
            if outcome.num_offered >= depth
            and outcome.accept_length >= depth - 1
            and not (outcome.censored and outcome.accept_length < depth)
        ]
        passed = sum(outcome.accept_length >= depth for outcome in at_risk)
        shares.append(passed / max(1, len(at_risk)))
    return shares
