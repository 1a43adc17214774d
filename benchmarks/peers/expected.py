"""`python -m benchmarks.peers.expected MAX_TOKENS NUM`: what transformers answers, kept as a file.

Plain `generate` in float32, one prompt at a time, to its own end: this is how long every system's
answer to a prompt has to be, and what it is compared with.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.peers.exported import FOLDER
from benchmarks.peers.workload import Job
from benchmarks.prompts import DOMAINS, load_prompts
from benchmarks.reference import Reference
from benchmarks.workbench import MODEL
from engine.model_files import resolve_model
from engine.text import Text


@dataclass(frozen=True, slots=True)
class Expected:
    """A job, and the texts of its answer's tokens: they end before the token that ends it."""

    job: Job
    tokens: tuple[str, ...]


def expected(max_tokens: int, per_domain: int) -> list[Expected]:
    """From a process of its own, which runs once for each size."""
    path = _path(max_tokens, per_domain)
    if not path.is_file():
        command = [sys.executable, "-m", "benchmarks.peers.expected", str(max_tokens)]
        subprocess.run([*command, str(per_domain)], check=True)
    return [
        Expected(
            Job(each["domain"], tuple(each["prompt_ids"]), len(each["tokens"])),
            tuple(each["tokens"]),
        )
        for each in json.loads(path.read_text())
    ]


def _path(max_tokens: int, per_domain: int) -> Path:
    """Named for all that it depends on."""
    asked = [list(prompt) for prompt in _prompts(per_domain)]
    digest = hashlib.sha256(json.dumps([str(resolve_model(MODEL)), asked]).encode()).hexdigest()
    return FOLDER / f"expected-{max_tokens}-{digest[:12]}.json"


def _prompts(per_domain: int) -> Iterator[tuple[str, str]]:
    for domain in DOMAINS:
        for prompt in load_prompts(domain)[:per_domain]:
            yield domain, prompt.text


def main() -> int:
    max_tokens, per_domain = map(int, sys.argv[1:])
    path = _path(max_tokens, per_domain)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps(_answers(max_tokens, per_domain)))
    staged.replace(path)
    return 0


def _answers(max_tokens: int, per_domain: int) -> list[dict[str, object]]:
    text = Text.load(resolve_model(MODEL))
    reference, found = Reference(MODEL, text.eos_token_ids), []
    for domain, prompt in _prompts(per_domain):
        chat = text.render_chat([{"role": "user", "content": prompt}])
        ids = tuple(text.encode(chat, add_special_tokens=False))
        answer, _ = reference.run(ids, max_tokens)
        ends = [i for i, token in enumerate(answer) if token in text.eos_token_ids]
        answer = answer[: ends[0]] if ends else answer
        detokenizer = text.detokenizer()
        tokens = [detokenizer.push(token) for token in answer]
        found.append({**asdict(Job(domain, ids, len(tokens))), "tokens": tokens})
    return found


if __name__ == "__main__":
    sys.exit(main())
