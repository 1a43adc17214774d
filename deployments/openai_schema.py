"""The bodies of the OpenAI endpoints: what is served, typed strictly; anything else is refused.

Ranges that the engine knows are checked there (`engine.request`), those of the API's own here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
)

from deployments.errors import ApiError, invalid
from deployments.neutral import drop_neutral
from engine.request import MAX_LOGPROBS

StreamedUsage = Literal["none", "last", "always"]
"""In no chunk of a stream, in one of its own at the end, or in all."""

MAX_STOPS = 4
MAX_STOP_LENGTH = 1000  # characters: text that may begin one is held back and looked through
MAX_ID_DIGITS = 19
M = TypeVar("M", bound="Body")


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _strings(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _token_biases(value: object) -> object:
    """JSON's keys are strings; these are token ids."""
    if not isinstance(value, dict):
        return value
    for key in value:
        if not (isinstance(key, str) and _is_id(key)):
            raise ValueError(f"{key!r} is no token id")
    return {int(key): bias for key, bias in value.items()}


def _is_id(key: str) -> bool:
    """Ids in one way of writing only, so that none is given twice."""
    is_number = len(key) <= MAX_ID_DIGITS and key.isascii() and key.isdigit()
    return is_number and str(int(key)) == key


def _prompts(value: object) -> object:
    """One prompt or a list of prompts, each a string or token ids, as a list of prompts."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise ValueError("expected a string, token ids, or a list of either")
    if all(type(item) is int for item in value):
        return [value]
    is_text = all(isinstance(item, str) for item in value)
    is_ids = all(isinstance(item, list) and _are_ids(item) for item in value)
    if not (is_text or is_ids):
        raise ValueError("expected a string, token ids, or a list of either")
    return value


def _are_ids(value: list[object]) -> bool:
    return bool(value) and all(type(item) is int for item in value)


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Strings = Annotated[list[Stop], BeforeValidator(_strings, json_schema_input_type=Stop | list[Stop])]
Prompts = Annotated[
    list[str | list[int]],
    BeforeValidator(_prompts, json_schema_input_type=str | list[int] | list[str] | list[list[int]]),
]
TokenBiases = Annotated[
    dict[int, float], BeforeValidator(_token_biases, json_schema_input_type=dict[str, float])
]


class StreamOptions(Body):
    """`continuous_usage_stats` is vLLM's: with `include_usage` each chunk has what it came to."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class SpeculationBody(Body):
    """Narrows what speculation may do for this request; the answer's text does not change.

    After `timeout_s` the request ends, wherever it is; the configuration's limit holds as well.
    """

    drafters: Annotated[list[str], Field(max_length=64)] | None = None
    selector: str | None = None
    max_draft_length: Annotated[int, Field(ge=0, le=2**16)] | None = None
    timeout_s: Annotated[float, Field(ge=0.001, le=86400)] | None = None


class GenerationBody(Body):
    """What both endpoints take."""

    model: str
    n: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Annotated[Strings, Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: TokenBiases | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[int], Field(max_length=64)] | None = None
    user: str | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=1000)] | None = None
    hedgerow: SpeculationBody | None = None

    @property
    def streamed_usage(self) -> StreamedUsage:
        options = self.stream_options
        if options is None or not options.include_usage:
            return "none"
        return "always" if options.continuous_usage_stats else "last"

    @property
    def num_choices(self) -> int:
        return self.n or 1


class TextPart(Body):
    type: Literal["text"]
    text: str


Parts = Annotated[list[TextPart], Field(min_length=1)]


def _content_tag(value: object) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


class Message(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[Parts, Tag("<parts>")],
        Discriminator(_content_tag),
    ]

    @property
    def text(self) -> str:
        """Parts are joined by line breaks."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class ChatBody(GenerationBody):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @property
    def beginning(self) -> list[str]:
        """The system's words and the user's first."""
        first = next((i for i, each in enumerate(self.messages) if each.role == "user"), 0)
        return [f"{each.role}: {each.text}" for each in self.messages[: first + 1]]


class CompletionBody(GenerationBody):
    """`POST /v1/completions`. Each prompt is a string or a list of token ids."""

    prompt: Prompts
    logprobs: int | None = None


def parse_body(model: type[M], value: dict[str, Any]) -> M:
    """Raises ApiError 400 that names the first wrong parameter."""
    served = drop_neutral(value, model.model_fields)
    try:
        body = model.model_validate(served)
    except ValidationError as error:
        raise refused(error) from error
    if isinstance(body, GenerationBody):
        _check_together(body)
    return body


def refused(error: ValidationError) -> ApiError:
    detail = error.errors(include_url=False)[0]
    path = _path(detail["loc"])
    if detail["type"] == "extra_forbidden":
        return invalid(path, f"{path}: unknown or unsupported parameter", "unsupported_parameter")
    if detail["type"] == "missing":
        return invalid(path, f"{path}: is missing", "missing_required_parameter")
    reason = detail["msg"].removeprefix("Value error, ")
    if not path:  # several parameters together
        return invalid(None, reason, "invalid_value")
    code = "invalid_type" if detail["type"].endswith("_type") else "invalid_value"
    return invalid(path, f"{path}: {reason[0].lower()}{reason[1:]}", code)


def _path(location: Sequence[str | int]) -> str:
    """Such as `messages[0].content[1].type`; the tags of unions are no keys of the body."""
    path = ""
    for part in location:
        if isinstance(part, int) and path:
            path += f"[{part}]"
        elif not str(part).startswith("<"):
            path += f".{part}" if path else str(part)
    return path


def _check_together(body: GenerationBody) -> None:
    """Parameters that only make sense with another."""
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "stream_options: only with 'stream': true")
    if isinstance(body, ChatBody):
        if body.top_logprobs is not None and not body.logprobs:
            raise invalid("top_logprobs", "top_logprobs: only with 'logprobs': true")
        if body.max_tokens is not None and body.max_completion_tokens not in (
            None,
            body.max_tokens,
        ):
            message = "max_tokens: differs from max_completion_tokens; give one of them"
            raise invalid("max_tokens", message)
