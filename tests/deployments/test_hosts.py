"""A drafter on a host of its own in the running application, and without it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psutil
from openai import OpenAI

MODEL = "smollm2-135m-instruct"
REPEATING = "one two three one two three one two three one two"
RECOVERY_S = 60.0


def ask(
    client: OpenAI, hedgerow: dict[str, Any], max_tokens: int = 24, **parameters: Any
) -> tuple[str, int]:
    """The text, and how many of the drafter's tokens were accepted."""
    answer = client.completions.create(
        model=MODEL,
        prompt=parameters.pop("prompt", REPEATING),
        max_tokens=max_tokens,
        extra_body={"hedgerow": hedgerow},
        **parameters,
    )
    assert answer.usage is not None
    speculation = (answer.usage.model_extra or {})["speculation"]
    used = speculation["per_drafter"].get("far", {"num_accepted_tokens": 0})
    return answer.choices[0].text, used["num_accepted_tokens"]


def far(client: OpenAI, **parameters: Any) -> tuple[str, int]:
    return ask(client, {"drafters": ["far"], "selector": "far"}, **parameters)


def far_text(client: OpenAI, **parameters: Any) -> str:
    return far(client, **parameters)[0]


def plain(client: OpenAI, **parameters: Any) -> str:
    return ask(client, {"drafters": []}, **parameters)[0]


def wait_for(condition: Callable[[], bool]) -> float:
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < RECOVERY_S
    return time.monotonic() - started_s


def host_pid(app: Any) -> int | None:
    below = psutil.Process(app.process.pid).children(recursive=True)
    found = [p.pid for p in below if p.is_running() and "Drafter-edge" in " ".join(p.cmdline())]
    return found[0] if found else None


def test_a_drafter_on_a_host_is_used_and_changes_no_word(app: Any, client: OpenAI) -> None:
    wait_for(lambda: far(client, temperature=0)[1] > 0)
    for parameters in ({"temperature": 0}, {"temperature": 1.0, "seed": 3}):
        assert far(client, **parameters)[0] == plain(client, **parameters)
    assert host_pid(app) is not None


def test_a_stopped_and_a_killed_host_cost_no_stream_a_word(app: Any, client: OpenAI) -> None:
    asked: list[dict[str, Any]] = [
        {"prompt": f"{REPEATING} {i}", "temperature": i % 2, "seed": i} for i in range(16)
    ]

    def all_of(ask: Callable[..., object], disturb: Callable[[], object]) -> list[object]:
        with ThreadPoolExecutor(16) as threads:
            answers = [threads.submit(ask, client, **parameters) for parameters in asked]
            wait_for(lambda: app.metric("num_requests_running") > 0)
            disturb()
            return [answer.result() for answer in answers]

    alone = all_of(plain, lambda: None)
    pid: int | None = None
    for number in (signal.SIGKILL, signal.SIGSTOP):
        wait_for(lambda: far(client, temperature=0)[1] > 0)
        pid = host_pid(app)
        assert pid is not None
        assert all_of(far_text, partial(os.kill, pid, number)) == alone
    assert pid is not None
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: far(client, temperature=0)[1] > 0)
