"""Domains: what users of one kind ask, as templates with words to fill in.

`training/domains/*.json` are ours, written for this project; a path to a file of that form is one
more. `system` is the system prompt under which the target invents requests of the domain itself.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "domains"
_SLOT = re.compile(r"\{(\w+)\}")


class DomainError(Exception):
    """A domain that is not there, or whose file is damaged; names it."""


@dataclass(frozen=True, slots=True)
class Domain:
    """`templates` and the `slots` in them, whose words may hold slots again."""

    name: str
    system: str
    templates: tuple[str, ...] = ()
    slots: Mapping[str, tuple[str, ...]] | None = None
    licence: str = ""
    """Of the templates, for model cards."""

    def prompt(self, index: int) -> str:
        """Request `index` of the domain; the same index gives the same request."""
        if not self.templates:
            raise DomainError(f"domain {self.name} has no templates; let the target write: self")
        words = random.Random(f"{self.name} {index}")
        return self._fill(words.choice(self.templates), words)

    def _fill(self, template: str, words: random.Random) -> str:
        slots = self.slots or {}
        return _SLOT.sub(lambda slot: self._fill(words.choice(slots[slot[1]]), words), template)


def names() -> list[str]:
    """The domains that come with the project."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_domain(name: str) -> Domain:
    """A domain of ours, or that of a file; raises DomainError."""
    path = Path(name) if name.endswith(".json") else _FOLDER / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        slots = {slot: tuple(words) for slot, words in content.get("slots", {}).items()}
        templates = tuple(content.get("templates", ()))
        licence = str(content.get("licence", ""))
        domain = Domain(path.stem, str(content["system"]), templates, slots, licence)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DomainError(f"{name}: expected one of {names()}, or a domain's file: {error}") from (
            error
        )
    texts = [*templates, *(word for words in slots.values() for word in words)]
    for slot in {found for text in texts for found in _SLOT.findall(text)}:
        if not slots.get(slot):
            raise DomainError(f"{name}: there are no words for {{{slot}}}")
    return domain
