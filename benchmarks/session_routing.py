"""`python -m benchmarks.session_routing`: what the prefix caches find by session and at random.

Conversations of several turns over three targets of the whole application, a few layers each: once
as they are, so that every turn goes to the target of the first, and once with a key of its own for
every turn, which spreads them at random. The last line printed is one JSON object with the share
of prompt tokens behind the first turn that were found. QUICK=1: fewer conversations.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.chaos_app import App, running_app
from benchmarks.chaos_load import TIMEOUT_S
from benchmarks.login import login
from benchmarks.machine import describe_machine, is_quick
from benchmarks.shallow_model import write_shallow_model
from benchmarks.varied_prompts import varied_prompts
from benchmarks.workbench import MODEL
from engine.model_files import resolve_model

NUM_LAYERS = 4
NUM_TARGETS = 3
NUM_TURNS = 5
NUM_TOGETHER = 4
MAX_TOKENS = 24


def main() -> int:
    print(describe_machine())
    num_conversations = 6 if is_quick() else 30
    prompts = varied_prompts(2 * num_conversations * NUM_TURNS, seed=3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        folder.mkdir()
        model = str(write_shallow_model(resolve_model(MODEL), NUM_LAYERS, folder))
        with running_app(Path(name) / "app", model, NUM_TARGETS, 1) as app:
            shares = {}
            for kind in ("random", "session"):
                own = [[prompts.pop() for _ in range(NUM_TURNS)] for _ in range(num_conversations)]
                shares[kind] = hit_share(app, model, own, is_random=kind == "random")
                print(f"{kind}: {shares[kind]:.1%} of the tokens that could be found", flush=True)
    print(json.dumps({f"{kind}_hit_share": round(share, 4) for kind, share in shares.items()}))
    return 0 if shares["session"] > shares["random"] else 1


def hit_share(app: App, model: str, conversations: list[list[str]], is_random: bool) -> float:
    """Of the prompt tokens of all turns but the first."""
    with (
        httpx.Client(base_url=app.url, headers=login(), timeout=TIMEOUT_S) as client,
        ThreadPoolExecutor(NUM_TOGETHER) as threads,
    ):
        found = list(
            threads.map(
                lambda pair: converse(client, model, pair[1], pair[0] if is_random else None),
                enumerate(conversations),
            )
        )
    return sum(cached for cached, _ in found) / sum(total for _, total in found)


def converse(
    client: httpx.Client, model: str, questions: list[str], random_seed: int | None
) -> tuple[int, int]:
    """(tokens found, tokens asked) behind the first turn."""
    rng = random.Random(random_seed)
    messages: list[dict[str, str]] = []
    num_cached = num_asked = 0
    for turn, question in enumerate(questions):
        messages.append({"role": "user", "content": question})
        body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": MAX_TOKENS}
        if random_seed is not None:
            body["prompt_cache_key"] = f"{rng.getrandbits(64)}"
        response = client.post("/v1/chat/completions", json={**body, "temperature": 0})
        response.raise_for_status()
        answer = response.json()
        messages.append(answer["choices"][0]["message"])
        if turn:
            num_cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            num_asked += answer["usage"]["prompt_tokens"]
    return num_cached, num_asked


if __name__ == "__main__":
    sys.exit(main())
