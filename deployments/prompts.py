"""From a body's messages or prompts to token ids, checked against what the target takes."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.errors import ApiError, invalid
from deployments.openai_schema import ChatBody, CompletionBody, Message
from engine.text import Text


def chat_prompt(text: Text, body: ChatBody) -> list[list[int]]:
    """One prompt; the template writes the special tokens itself."""
    rendered = text.render_chat([_templated(message) for message in body.messages])
    return [text.encode(rendered, add_special_tokens=False)]


def completion_prompts(text: Text, body: CompletionBody) -> list[list[int]]:
    return [
        text.encode(prompt, add_special_tokens=True) if isinstance(prompt, str) else prompt
        for prompt in body.prompt
    ]


def _templated(message: Message) -> dict[str, object]:
    """OpenAI's newer name of the system's role is unknown to templates."""
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": message.text}


def check_prompts(
    prompts: Sequence[Sequence[int]], parameter: str, vocab_size: int, max_prompt_tokens: int
) -> None:
    for prompt in prompts:
        if not prompt:
            raise invalid(parameter, f"{parameter}: has no tokens", "invalid_value")
        if len(prompt) > max_prompt_tokens:
            raise too_long(parameter, len(prompt), max_prompt_tokens)
        if any(not 0 <= token_id < vocab_size for token_id in prompt):
            message = f"{parameter}: token ids are from 0 to {vocab_size - 1}"
            raise invalid(parameter, message, "invalid_value")


def too_long(parameter: str, num_tokens: int, limit: int) -> ApiError:
    message = f"{parameter}: {num_tokens} tokens are asked for, at most {limit} fit"
    return invalid(parameter, message, "context_length_exceeded")
