"""OpenAI parameters that are not served, accepted only with a value that asks for nothing.

Clients and frameworks send these defaults; any other value is refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from deployments.errors import invalid

NEUTRAL: dict[str, tuple[object, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "metadata": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}
"""Beside null, which asks for nothing everywhere."""

NEUTRAL_IN_MESSAGE = (
    "annotations",
    "audio",
    "function_call",
    "name",
    "refusal",
    "tool_call_id",
    "tool_calls",
)
"""Null or empty in the messages that a client sends back as it got them."""


def drop_neutral(body: dict[str, Any], served: Container[str]) -> dict[str, Any]:
    """`body` without the parameters that ask for nothing."""
    kept = {}
    for name, value in body.items():
        if name in served or name not in NEUTRAL:
            kept[name] = value
        elif value is not None and not _is_one_of(value, NEUTRAL[name]):
            raise invalid(name, f"{name}: is not supported here", "unsupported_parameter")
    messages = kept.get("messages")
    if isinstance(messages, list):
        kept["messages"] = [_drop_from_message(message) for message in messages]
    return kept


def _is_one_of(value: object, allowed: tuple[object, ...]) -> bool:
    """Equal and of the same type: 0 is not False."""
    return any(type(value) is type(other) and value == other for other in allowed)


def _drop_from_message(message: object) -> object:
    if not isinstance(message, dict):
        return message
    return {
        name: value
        for name, value in message.items()
        if not (name in NEUTRAL_IN_MESSAGE and (value is None or value == []))
    }
