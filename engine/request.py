"""What goes into the engine and what comes out: plain, frozen data, checked once.

A request is one choice of one prompt; `n` choices are n requests with seeds from
`choice_seed`. Emissions come one per sequence and round, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.errors import InvalidRequestError

FinishReason = Literal["stop", "length"]
MAX_LOGPROBS = 20
MIN_WEIGHT, MAX_WEIGHT = 1e-3, 1e3


def _check(parameter: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # false for NaN too
        raise InvalidRequestError(parameter, value, f"a number in [{low:g}, {high:g}]")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How a token is drawn from the target's logits, in the order of DESIGN section 5.

    penalties -> logit bias -> min_tokens -> temperature -> top_k -> min_p -> top_p -> noise.
    `temperature` 0 is greedy. `top_k` 0 keeps all tokens. Penalties follow OpenAI (presence and
    frequency: generated tokens only) and Hugging Face (repetition: prompt and generated tokens).
    `logprobs` is the number of alternatives reported beside each token; None reports nothing.
    `masked_ids` (EOS and stop tokens) cannot be drawn before `min_tokens` tokens were; the engine
    fills them in, so that a drafter draws as the target does.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    seed: int = 0
    logprobs: int | None = None
    masked_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0, 2.0)
        _check("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise InvalidRequestError("top_p", self.top_p, "a number in (0, 1]")
        _check("top_k", self.top_k, 0, 2**31)
        _check("min_p", self.min_p, 0.0, 1.0)
        _check("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _check("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _check("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _check("min_tokens", self.min_tokens, 0, 2**31)
        _check("seed", self.seed, -(2**63), 2**64 - 1)
        for bias in self.logit_bias.values():
            _check("logit_bias", bias, -100.0, 100.0)
        if self.logprobs is not None:
            _check("logprobs", self.logprobs, 0, MAX_LOGPROBS)


@dataclass(frozen=True, slots=True)
class SpeculationOptions:
    """What a request asks of speculation; None leaves it to the selector.

    `drafters` narrows the choice to these names (empty: plain decoding), `max_draft_length` caps
    every draft (0: plain decoding), `selector` names another configured selector.
    """

    drafters: tuple[str, ...] | None = None
    max_draft_length: int | None = None
    selector: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One choice to generate. `sequence_id` is unique among live requests.

    `prompt_ids` has at least one token. `leader_id` names a request with the same prompt whose
    prefill this one may wait for and share (the other choices of one call). `emitted_ids` are what
    another target said already: the answer goes on behind them, and `max_tokens` counts them.

    Of `tenant`: `weight` is its share beside other tenants', `kv_quota_tokens` the most tokens that
    its sequences may hold in the KV cache together (None: all there is). Among its own requests
    those of a lower `priority` go first.
    """

    sequence_id: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    tenant: str = "default"
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    speculation: SpeculationOptions = field(default_factory=SpeculationOptions)
    leader_id: str | None = None
    weight: float = 1.0
    priority: int = 0
    kv_quota_tokens: int | None = None
    emitted_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check("weight", self.weight, MIN_WEIGHT, MAX_WEIGHT)
        if self.kv_quota_tokens is not None:
            _check("kv_quota_tokens", self.kv_quota_tokens, 1, 2**62)
        if not self.prompt_ids:
            raise InvalidRequestError("prompt", "", "at least one token")
        if self.max_tokens < 1:
            raise InvalidRequestError("max_tokens", self.max_tokens, "an integer >= 1")
        if any(not text for text in self.stop):
            raise InvalidRequestError("stop", "", "non-empty strings")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log-probability of a token under the target's unprocessed distribution.

    `top` holds the most likely (token id, log-probability) pairs, best first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class DrafterUse:
    """What one drafter did for a sequence: counts of rounds, draft tokens, accepted tokens."""

    num_rounds: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0

    def __add__(self, other: DrafterUse) -> DrafterUse:
        return DrafterUse(
            self.num_rounds + other.num_rounds,
            self.num_draft_tokens + other.num_draft_tokens,
            self.num_accepted_tokens + other.num_accepted_tokens,
        )


@dataclass(frozen=True, slots=True)
class SpeculationUse:
    """What speculation did for a sequence so far.

    `num_rounds` counts target forwards that emitted tokens; `per_drafter` has an entry for every
    drafter that drafted at least once.
    """

    num_rounds: int = 0
    num_emitted_tokens: int = 0
    per_drafter: Mapping[str, DrafterUse] = field(default_factory=dict)

    @property
    def num_draft_tokens(self) -> int:
        return sum(use.num_draft_tokens for use in self.per_drafter.values())

    @property
    def num_accepted_tokens(self) -> int:
        return sum(use.num_accepted_tokens for use in self.per_drafter.values())

    def __add__(self, other: SpeculationUse) -> SpeculationUse:
        per_drafter = dict(self.per_drafter)
        for name, use in other.per_drafter.items():
            per_drafter[name] = per_drafter.get(name, DrafterUse()) + use
        return SpeculationUse(
            self.num_rounds + other.num_rounds,
            self.num_emitted_tokens + other.num_emitted_tokens,
            per_drafter,
        )

    @property
    def mean_acceptance_length(self) -> float:
        """Emitted tokens per round, bonus included: plain decoding is 1.0."""
        return self.num_emitted_tokens / self.num_rounds if self.num_rounds else 1.0


@dataclass(frozen=True, slots=True)
class Emission:
    """What one round emitted for one sequence.

    `text` is complete characters only and never contains a stop string, nor a part of one that
    could still complete; the text of all emissions joined is the answer. `logprobs` matches
    `token_ids` one to one if asked for, else it is empty. `num_cached_tokens` counts the prompt
    tokens found in the prefix cache. The last emission carries the finish reason.
    """

    sequence_id: str
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    use: SpeculationUse = field(default_factory=SpeculationUse)
