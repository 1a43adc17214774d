"""Streams that follow each other without end, and what became of each: the load of proofs."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.login import login
from deployments.serve_status import DIRECT

TIMEOUT_S = 180.0
_SENTENCE = "the hedge is green and the bird is in the hedge and "


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it began and ended; `failure` is empty for a whole answer."""

    started_s: float
    ended_s: float
    text: str
    num_draft_tokens: int
    failure: str = ""


class SteadyLoad:
    """`num_streams` clients on `url`, each with one request after the other, greedy."""

    def __init__(self, url: str, model: str, num_streams: int, num_tokens: int) -> None:
        self._url = url
        self._model = model
        self._num_tokens = num_tokens
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.answers: list[Answered] = []
        self._threads = [
            threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(num_streams)
        ]

    def __enter__(self) -> SteadyLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    @property
    def failures(self) -> list[str]:
        return [answer.failure for answer in self.answers if answer.failure]

    def since(self, start_s: float) -> list[Answered]:
        """Whole answers to requests that began then or later."""
        return [a for a in list(self.answers) if a.started_s >= start_s and not a.failure]

    def drafted_since(self, start_s: float) -> int:
        return sum(answer.num_draft_tokens for answer in self.since(start_s))

    def wait_for(self, num_answers: int, timeout_s: float) -> None:
        """Until so many more have come; AssertionError if they do not."""
        enough = len(self.answers) + num_answers
        assert until(lambda: len(self.answers) >= enough, timeout_s), "answers do not come"

    def _run(self, number: int) -> None:
        while not self._stopping.is_set():
            answer = ask(self._url, self._model, _SENTENCE * (3 + number % 3), self._num_tokens)
            with self._lock:
                self.answers.append(answer)
            if answer.failure:
                time.sleep(0.5)


def ask(url: str, model: str, prompt: str, num_tokens: int) -> Answered:
    """One streamed completion; anything but a whole answer is a failure."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": num_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(
        f"{url}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **login()},
    )
    started_s, text, drafted, is_done = time.monotonic(), "", 0, False
    failure = "the stream ended early"
    try:
        with DIRECT.open(request, timeout=TIMEOUT_S) as lines:
            for line in lines:
                data = line.decode().removeprefix("data: ").strip()
                if data == "[DONE]":
                    is_done = True
                elif data:
                    found = json.loads(data)
                    if "error" in found:
                        failure = str(found["error"])
                        break
                    text += "".join(choice["text"] for choice in found["choices"])
                    usage = found.get("usage") or {}
                    drafted = usage.get("speculation", {}).get("num_draft_tokens", drafted)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    return Answered(started_s, time.monotonic(), text, drafted, "" if is_done else failure)


def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it held within that time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        with suppress(OSError):
            if condition():
                return True
        time.sleep(0.25)
    return False
