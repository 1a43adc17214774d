"""16 clients that stream answers of the running application without a pause, and what they got."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from benchmarks.login import login

NUM_STREAMS = 16
MAX_TOKENS = 40
ONE_ROUND_S = 0.005  # a round of the model takes several times as long
MODEL = "smollm2-135m-instruct"
PROMPTS = (
    "one two three one two three one two three one two",
    "Repeat: the hedge sparrow, the wren, the robin. Repeat: the hedge sparrow, the wren,",
    "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n\ndef mul(a, b):\n",
    "Once upon a time there was a",
)


class Load:
    """`accepted` is the truth: accepted tokens by drafter, as the answers themselves say.

    `failures` are requests that did not end as they should; `gaps` the seconds between two rounds
    of a stream, with the time of the second. The items of one round come together.
    """

    def __init__(self, url: str) -> None:
        self.accepted: Counter[str] = Counter()
        self.failures: list[str] = []
        self.gaps: list[tuple[float, float]] = []
        self.num_answers = 0
        self._url = url
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._running = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._running.set()
        self._threads = [threading.Thread(target=self._run) for _ in range(NUM_STREAMS)]
        for thread in self._threads:
            thread.start()

    def drain(self) -> None:
        """No more requests; returns when the last has its answer."""
        self._running.clear()
        for thread in self._threads:
            thread.join()

    def num_draft_tokens(self) -> Counter[str]:
        """By drafter, of as many answers at once as there are streams."""
        with (
            httpx.Client(timeout=120, headers=login()) as client,
            ThreadPoolExecutor(NUM_STREAMS) as threads,
        ):
            numbers = [next(self._numbers) for _ in range(NUM_STREAMS)]
            answers = list(threads.map(lambda number: self._ask(client, number), numbers))
        found: Counter[str] = Counter()
        for uses in answers:
            found.update({name: use["num_draft_tokens"] for name, use in uses.items()})
        return found

    def _run(self) -> None:
        with httpx.Client(timeout=120, headers=login()) as client:
            while self._running.is_set():
                try:
                    self._ask(client, next(self._numbers))
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    with self._lock:
                        self.failures.append(f"{type(error).__name__}: {error}")

    def _ask(self, client: httpx.Client, number: int) -> dict[str, dict[str, int]]:
        """What each drafter did; ValueError if the answer is not whole."""
        body = {
            "model": MODEL,
            "prompt": PROMPTS[number % len(PROMPTS)],
            "max_tokens": MAX_TOKENS,
            "temperature": 0.5,
            "seed": number,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        times, events = [], []
        with client.stream("POST", f"{self._url}/v1/completions", json=body) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    times.append(time.monotonic())
                    events.append(line.removeprefix("data: "))
        if events[-1] != "[DONE]":
            raise ValueError(f"a stream ended with {events[-1]!r}")
        usage: dict[str, Any] = json.loads(events[-2])["usage"]
        if usage["completion_tokens"] != MAX_TOKENS:
            raise ValueError(f"{usage['completion_tokens']} tokens")
        uses: dict[str, dict[str, int]] = usage["speculation"]["per_drafter"]
        with self._lock:
            self.num_answers += 1
            self.gaps += [
                (after, after - before)
                for before, after in itertools.pairwise(times)
                if after - before > ONE_ROUND_S
            ]
            for name, use in uses.items():
                self.accepted[name] += use["num_accepted_tokens"]
        return uses
