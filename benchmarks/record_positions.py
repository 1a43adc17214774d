"""What every drafter would have offered at each position of an answer, and how much was right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.drafters.drafter import Drafter, DraftRequest, ScoreRequest
from engine.request import SamplingParams


@dataclass(frozen=True, slots=True)
class Answer:
    """What the target said to one prompt, with these sampling parameters."""

    id: str
    domain: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    sampling: SamplingParams


def record(answer: Answer, drafters: Sequence[Drafter]) -> dict[str, object]:
    """A line of a trace, in the form that `benchmarks.replay_traces` reads.

    Accept lengths include the bonus token. A drafter that has nothing to say of a position, as
    beyond its longest sequence, offered nothing there.
    """
    matches = {each.name: _match_lengths(answer, each) for each in drafters if each.is_free}
    scores = {each.name: _scores(answer, each) for each in drafters}
    num_tokens = len(answer.ids)
    return {
        "id": answer.id,
        "domain": answer.domain,
        "num_prompt_tokens": len(answer.prompt_ids),
        "counterfactual": True,
        "temperature": answer.sampling.temperature,
        "generated_token_ids": list(answer.ids),
        "accept_length": {
            name: [each.get(i, (0, 0))[1] + 1 for i in range(num_tokens)]
            for name, each in scores.items()
        },
        "offered": {
            name: [each.get(i, (0, 0))[0] for i in range(num_tokens)]
            for name, each in scores.items()
        },
        "match_length": matches,
    }


def _match_lengths(answer: Answer, drafter: Drafter) -> list[int]:
    tokens = list(answer.prompt_ids)
    matches = []
    for token in answer.ids:
        (draft,) = drafter.draft(
            [
                DraftRequest(
                    answer.id,
                    answer.domain,
                    tokens,
                    len(answer.prompt_ids),
                    answer.sampling,
                    drafter.max_draft_length,
                )
            ]
        )
        matches.append(draft.match_length)
        tokens.append(token)
    return matches


def _scores(answer: Answer, drafter: Drafter) -> Mapping[int, tuple[int, int]]:
    """By output position (tokens offered, tokens accepted)."""
    num_prompt_tokens = len(answer.prompt_ids)
    tokens = [*answer.prompt_ids, *answer.ids]
    request = ScoreRequest(
        answer.id, answer.domain, tokens, num_prompt_tokens, answer.sampling, finished=True
    )
    (outcomes,) = drafter.score([request])
    drafter.forget([answer.id])
    return {o.base_length - num_prompt_tokens: (o.num_offered, o.accept_length) for o in outcomes}
