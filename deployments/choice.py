"""A choice as it grows from emissions, and what all choices of a call used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from cluster.limits.usage import Usage
from engine.request import Emission, SpeculationUse, TokenLogprob


@dataclass(slots=True)
class Choice:
    """Everything emitted so far for one sequence."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    finish_reason: str | None = None
    use: SpeculationUse = field(default_factory=SpeculationUse)

    def add(self, emission: Emission) -> None:
        self.text += emission.text
        self.logprobs.extend(emission.logprobs)
        self.num_tokens += len(emission.token_ids)
        self.num_prompt_tokens = emission.num_prompt_tokens
        self.num_cached_tokens = emission.num_cached_tokens
        self.finish_reason = emission.finish_reason
        self.use = emission.use


def usage(choices: Sequence[Choice], num_choices: int) -> dict[str, object]:
    """OpenAI's `usage` plus `speculation`. A prompt counts once, however many choices it has."""
    firsts = choices[::num_choices]
    num_prompt_tokens = sum(choice.num_prompt_tokens for choice in firsts)
    num_tokens = sum(choice.num_tokens for choice in choices)
    use = sum((choice.use for choice in choices), SpeculationUse())
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt_tokens + num_tokens,
        "prompt_tokens_details": {
            "cached_tokens": sum(choice.num_cached_tokens for choice in firsts)
        },
        "completion_tokens_details": {
            "accepted_prediction_tokens": use.num_accepted_tokens,
            "rejected_prediction_tokens": use.num_draft_tokens - use.num_accepted_tokens,
        },
        "speculation": {
            "num_rounds": use.num_rounds,
            "num_draft_tokens": use.num_draft_tokens,
            "num_accepted_tokens": use.num_accepted_tokens,
            "mean_acceptance_length": use.mean_acceptance_length,
            "per_drafter": {name: asdict(item) for name, item in use.per_drafter.items()},
        },
    }


def spent(choices: Sequence[Choice], num_choices: int) -> Usage:
    """What a tenant's account is charged with; not a request before anything was emitted."""
    firsts = choices[::num_choices]
    use = sum((choice.use for choice in choices), SpeculationUse())
    if not any(choice.num_prompt_tokens for choice in choices):
        return Usage()
    return Usage(
        num_requests=1,
        num_prompt_tokens=sum(choice.num_prompt_tokens for choice in firsts),
        num_cached_tokens=sum(choice.num_cached_tokens for choice in firsts),
        num_completion_tokens=sum(choice.num_tokens for choice in choices),
        num_draft_tokens=use.num_draft_tokens,
        num_accepted_tokens=use.num_accepted_tokens,
    )
