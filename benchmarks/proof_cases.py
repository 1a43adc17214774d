"""What the proof decodes: generated prompts, every temperature with every sampling option.

Cases belong to a few tenants, so that prompts share prefixes and outputs are learnt from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from benchmarks.varied_prompts import varied_prompts
from engine.request import GenerationRequest, SamplingParams, SpeculationOptions

TEMPERATURES = (0.0, 0.7, 1.0)
OPTIONS = (
    SamplingParams(),
    SamplingParams(top_p=0.9),
    SamplingParams(top_k=50),
    SamplingParams(min_p=0.05),
    SamplingParams(top_k=40, top_p=0.95, min_p=0.02),
    SamplingParams(presence_penalty=0.6, frequency_penalty=0.4),
    SamplingParams(repetition_penalty=1.15),
    SamplingParams(logit_bias={198: -3.0, 28: 2.0, 30: -100.0}),
    SamplingParams(min_tokens=40),
    SamplingParams(logprobs=3, top_p=0.8),
    SamplingParams(repetition_penalty=1.05, frequency_penalty=0.2, top_k=20, min_tokens=10),
)
SAMPLING = tuple(
    replace(options, temperature=temperature)
    for options, temperature in product(OPTIONS, TEMPERATURES)
)
NUM_TENANTS = 3
_EOS_EVERY = 8  # one case in so many may end early


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt and how it is sampled, the same on both sides of a comparison."""

    number: int
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int

    @property
    def id(self) -> str:
        return f"case {self.number}"

    @property
    def ends_at_eos(self) -> bool:
        return self.number % _EOS_EVERY == 0

    def request(self, is_plain: bool, tenant: str | None = None) -> GenerationRequest:
        """`tenant` None is the one that shares with others."""
        return GenerationRequest(
            sequence_id=self.id,
            prompt_ids=self.prompt_ids,
            max_tokens=self.max_tokens,
            sampling=self.sampling,
            tenant=tenant or f"tenant {self.number % NUM_TENANTS}",
            ignore_eos=not self.ends_at_eos,
            speculation=SpeculationOptions(drafters=() if is_plain else None),
        )


def proof_cases(
    num_prompts: int, max_tokens: int, seed: int, encode: Callable[[str], Sequence[int]]
) -> list[Case]:
    """The first `num_prompts` cases; `encode` makes the ids of a chat with one user message."""
    return [
        Case(i, tuple(encode(prompt)), replace(SAMPLING[i % len(SAMPLING)], seed=i), max_tokens)
        for i, prompt in enumerate(varied_prompts(num_prompts, seed))
    ]
