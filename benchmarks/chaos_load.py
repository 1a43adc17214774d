"""16 streams and 16 unary requests at once, and whether each answer is the one that is known."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from benchmarks.login import login

NUM_STREAMS = 16
TIMEOUT_S = 300.0
PROMPTS = (
    "one two three one two three one two three one two",
    "Repeat: the hedge sparrow, the wren, the robin. Repeat: the hedge sparrow, the wren,",
    "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n\ndef mul(a, b):\n",
    "Once upon a time there was a",
)

Outcome = Literal["exact", "error", "cut", "silent", "wrong"]
"""`error` and `cut` are seen by the client; `silent` is an answer that looks whole and is not."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; whether it is streamed is decided when it is sent."""

    path: str
    body: dict[str, Any]


@dataclass(slots=True)
class Answer:
    """By choice: the text, log-probs if asked for, why it ended. `end` is how the whole ended."""

    texts: dict[int, str] = field(default_factory=dict)
    logprobs: dict[int, list[Any]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    end: Literal["whole", "error", "cut"] = "cut"
    error: str = field(default="", compare=False)

    def add(self, choice: dict[str, Any]) -> None:
        index = choice["index"]
        part = choice.get("delta") or choice.get("message") or choice
        text = part.get("content") or part.get("text") or ""
        self.texts[index] = self.texts.get(index, "") + text
        if told := choice.get("logprobs"):
            pairs = zip(told["tokens"], told["token_logprobs"], strict=True)
            self.logprobs.setdefault(index, []).extend(pairs)
        if choice["finish_reason"] is not None:
            self.reasons[index] = choice["finish_reason"]

    def outcome(self, known: Answer, most_rounding: float) -> Outcome:
        if self.end != "whole":
            return self.end
        if self.reasons.keys() != known.reasons.keys():
            return "silent"
        is_same = (self.texts, self.reasons) == (known.texts, known.reasons)
        return "exact" if is_same and self._is_near(known, most_rounding) else "wrong"

    def _is_near(self, known: Answer, most_rounding: float) -> bool:
        """Whether the tokens with log-probs are the same, and their log-probs as near as that."""
        if self.logprobs.keys() != known.logprobs.keys():
            return False
        for choice, pairs in self.logprobs.items():
            others = known.logprobs[choice]
            if [token for token, _ in pairs] != [token for token, _ in others]:
                return False
            gaps = [abs(a - b) for (_, a), (_, b) in zip(pairs, others, strict=True)]
            if max(gaps, default=0.0) > most_rounding:
                return False
        return True


def requests(model: str, max_tokens: int, count: int = NUM_STREAMS) -> list[Asked]:
    """Chat and completion, greedy and sampled, several choices, penalties, log-probs, stops."""
    options: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 1.0, "n": 2},
        {"temperature": 0.7, "top_p": 0.9, "frequency_penalty": 0.4},
        {"temperature": 0.5, "stop": ["zebra", "\n\n\n\n"], "repetition_penalty": 1.1},
    ]
    made = []
    for i in range(count):
        chosen = options[i % len(options)]
        body = {"model": model, "max_tokens": max_tokens, "seed": i, "ignore_eos": True, **chosen}
        prompt = f"{PROMPTS[i // len(options)]} {i}"
        if i % 2:
            messages = [{"role": "user", "content": prompt}]
            made.append(Asked("/v1/chat/completions", {**body, "messages": messages}))
        else:
            made.append(Asked("/v1/completions", {**body, "prompt": prompt, "logprobs": 1}))
    return made


async def ask(client: httpx.AsyncClient, asked: Asked, stream: bool) -> Answer:
    """Whatever happens is in the answer."""
    answer = Answer()
    body = {**asked.body, "stream": stream}
    try:
        async with client.stream("POST", asked.path, json=body) as response:
            if response.status_code != 200:
                answer.end, answer.error = "error", (await response.aread()).decode()
            elif stream:
                await _read_events(response, answer)
            else:
                for choice in json.loads(await response.aread())["choices"]:
                    answer.add(choice)
                answer.end = "whole"
    except (httpx.HTTPError, ValueError) as error:
        answer.error = f"{type(error).__name__}: {error}"
        answer.end = "cut" if answer.end == "whole" else answer.end
    return answer


async def _read_events(response: httpx.Response, answer: Answer) -> None:
    """A stream that closes without `[DONE]` still looks whole to many clients."""
    async for line in response.aiter_lines():
        if not line.startswith("data: "):
            continue
        data = line.removeprefix("data: ")
        content = {} if data == "[DONE]" else json.loads(data)
        if "error" in content:
            answer.end, answer.error = "error", data
        for choice in content.get("choices", ()):
            answer.add(choice)
    if answer.end != "error":
        answer.end = "whole"


class Load:
    """The same requests over and over, against what they were answered at first.

    `count` of them are streamed, and as many are not. Log-probs may differ by `most_rounding`,
    which is more than 0 where `numerics` is fast.
    """

    def __init__(
        self, url: str, model: str, max_tokens: int, count: int = NUM_STREAMS,
        most_rounding: float = 0.0,
    ) -> None:  # fmt: skip
        self.url = url
        self._most_rounding = most_rounding
        self.errors: Counter[str] = Counter()
        """What clients were told instead of an answer, shortened."""
        self._asked = requests(model, max_tokens, count)
        self._known: list[Answer] = []

    def learn(self) -> None:
        """What everybody says undisturbed."""
        self._known = asyncio.run(self._all(False))
        for answer in self._known:
            assert answer.end == "whole", f"an undisturbed request: {answer}"

    def time(self) -> float:
        """Seconds that an undisturbed round takes."""
        started_s = time.monotonic()
        outcomes = [outcome for _, outcome in self.play()]
        assert set(outcomes) == {"exact"}, f"undisturbed answers differ: {outcomes}"
        return time.monotonic() - started_s

    def play(self) -> Iterator[tuple[bool, Outcome]]:
        """(is a stream, outcome) of every request, all at once."""
        yield from asyncio.run(self._both())

    async def _both(self) -> list[tuple[bool, Outcome]]:
        streams, unary = await asyncio.gather(self._all(True), self._all(False))
        self.errors.update(answer.error[:160] for answer in (*streams, *unary) if answer.error)
        return [
            (is_stream, answer.outcome(known, self._most_rounding))
            for is_stream, answers in ((True, streams), (False, unary))
            for answer, known in zip(answers, self._known, strict=True)
        ]

    async def _all(self, stream: bool) -> list[Answer]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=self.url, headers=login(), timeout=TIMEOUT_S, limits=limits
        ) as client:
            return await asyncio.gather(*(ask(client, each, stream) for each in self._asked))

    def probe(self, timeout_s: float) -> float:
        """Seconds until a new request is answered, asked again when it fails."""
        asked = self._asked[0]
        body = {**asked.body, "max_tokens": 1}
        started_s = time.monotonic()
        with httpx.Client(base_url=self.url, headers=login(), timeout=timeout_s) as client:
            while time.monotonic() - started_s < timeout_s:
                try:
                    if client.post(asked.path, json=body).status_code == 200:
                        return time.monotonic() - started_s
                except httpx.HTTPError:
                    pass
                time.sleep(0.05)
        raise SystemExit(f"no request was answered within {timeout_s:g} s")
