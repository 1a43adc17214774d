"""The benchmarks' prompts: four hand-written sets by domain, each a file of `prompt_sets/`.

`edit` asks to repeat or edit 100-200 tokens of given text, where looking the answer up in the
prompt pays; the others give little to look up. `benchmarks.varied_prompts` generates many more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

DOMAINS = ("code", "math", "chat", "edit")
_FOLDER = Path(__file__).parent / "prompt_sets"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user message and the set that it belongs to."""

    domain: str
    text: str


def load_prompts(domain: str) -> list[Prompt]:
    """All prompts of a set, in file order."""
    lines = (_FOLDER / f"{domain}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Prompt(domain, json.loads(line)["prompt"]) for line in lines]
