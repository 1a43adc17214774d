"""Renders a conversation with a model's own Jinja template, in the dialect of Hugging Face.

The template runs in a sandbox without access to files or the network; what it cannot render is
the request's fault and names the parameter `messages`. Loads no torch and no transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import InvalidRequestError

Message = Mapping[str, object]


class _Generation(Extension):
    """`{% generation %}` marks answers for training; here it is just its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(template: str) -> str:
    return datetime.now().strftime(template)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which a prompt must not."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class ChatTemplate:
    """A compiled template and the special tokens that it may write."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._template = _environment().from_string(source)
        self._special_tokens = dict(special_tokens)

    def render(self, messages: Sequence[Message], **template_kwargs: object) -> str:
        """The prompt, open for the assistant's answer unless `add_generation_prompt` is False."""
        variables: dict[str, object] = {
            **self._special_tokens,
            "add_generation_prompt": True,
            "tools": None,
            "documents": None,
            **template_kwargs,
        }
        try:
            return self._template.render(messages=list(messages), **variables)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
            roles = [message.get("role") for message in messages]
            allowed = f"a conversation that the model's chat template takes ({error})"
            raise InvalidRequestError("messages", roles, allowed) from error
