"""Where prompts come from: a domain's templates, files, own traffic, or the target itself.

A source is asked for conversation `index` and gives the same one every time. `seeds` is the
domain's templates; `self` lets the target write the user's turn under the domain's system prompt;
anything else is a JSON Lines file of `{"prompt": ...}` or of logged request bodies with
`messages`, whose answers are not used: the target answers anew. What a model card says of such a
file is the first line of a `.licence` file of its name beside it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.domains import Domain

SEEDS, SELF = "seeds", "self"
Messages = tuple[Mapping[str, str], ...]


class SourceError(Exception):
    """A file of prompts that cannot be used; names the file and the line."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation to answer. With `is_invented` the target still has to write its last turn."""

    messages: Messages
    is_invented: bool = False


class Sources:
    """Takes turns among several sources."""

    def __init__(self, names: Sequence[str], domain: Domain, seed: int) -> None:
        self._domain = domain
        self._seed = seed
        self._names = list(names)
        self._files = {
            name: read_conversations(Path(name)) for name in names if name not in (SEEDS, SELF)
        }
        for name, found in self._files.items():
            random.Random(f"{seed} {name}").shuffle(found)

    def conversation(self, index: int) -> Asked:
        turn, which = divmod(index, len(self._names))
        name = self._names[which]
        if name == SELF:
            return Asked(({"role": "system", "content": self._domain.system},), is_invented=True)
        if name == SEEDS:
            return Asked((_user(self._domain.prompt(self._seed * 1_000_003 + turn)),))
        conversations = self._files[name]
        return Asked(conversations[turn % len(conversations)])


def licences_of(names: Sequence[str], domain: Domain) -> tuple[str, ...]:
    """What prompts each source has, and under what licence."""
    return tuple(_licence_of(name, domain) for name in names)


def _licence_of(name: str, domain: Domain) -> str:
    if name == SELF:
        return "the target's own inventions"
    if name == SEEDS:
        return f"templates of {domain.name} ({domain.licence or 'licence not stated'})"
    path = Path(name).with_suffix(".licence")
    try:
        stated = path.read_text(encoding="utf-8").strip().partition("\n")[0]
    except FileNotFoundError:
        stated = ""
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}") from error
    return stated or f"{Path(name).name} (licence not stated)"


def read_conversations(path: Path) -> list[Messages]:
    """Up to each one's last user turn."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_conversation(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                message = f"{path}:{number}: expected a prompt or messages: {error}"
                raise SourceError(message) from error
    if not found:
        raise SourceError(f"{path}: it has no prompts")
    return found


def _conversation(line: object) -> Messages:
    if not isinstance(line, Mapping):
        raise TypeError("not an object")
    prompt, messages = line.get("prompt"), line.get("messages")
    if isinstance(prompt, str):
        return (_user(prompt),)
    if not isinstance(messages, list):
        raise TypeError("neither is there")
    turns = [{"role": str(m["role"]), "content": str(m["content"])} for m in messages]
    while turns and turns[-1]["role"] != "user":
        turns.pop()
    if not turns:
        raise ValueError("no user speaks")
    return tuple(turns)


def _user(text: str) -> Mapping[str, str]:
    return {"role": "user", "content": text}
