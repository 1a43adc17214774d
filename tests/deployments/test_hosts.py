"""A drafter on a host of its own in the running application, and without it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import psutil
from openai import OpenAI

MODEL = "smollm2-135m-instruct"
REPEATING = "one two three one two three one two three one two"
RECOVERY_S = 60.0


def ask(
    client: OpenAI,
    hedgerow: dict[str, Any],
    max_tokens: int = 24,
    name: str = "far",
    **parameters: Any,
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
    used = speculation["per_drafter"].get(name, {"num_accepted_tokens": 0})
    return answer.choices[0].text, used["num_accepted_tokens"]


def far(client: OpenAI, **parameters: Any) -> tuple[str, int]:
    return ask(client, {"drafters": ["far"], "selector": "far"}, **parameters)


def far_text(client: OpenAI, **parameters: Any) -> str:
    return far(client, **parameters)[0]


def plain(client: OpenAI, **parameters: Any) -> str:
    return ask(client, {"drafters": []}, **parameters)[0]


def wait_for(condition: Callable[[], bool]) -> float:
    started_s, pause = time.monotonic(), threading.Event()
    while not condition():
        assert time.monotonic() - started_s < RECOVERY_S
        pause.wait(0.1)
    return time.monotonic() - started_s


def host_pid(app: Any) -> int | None:
    below = psutil.Process(app.process.pid).children(recursive=True)
    found = [p.pid for p in below if p.is_running() and "Drafter-domains" in " ".join(p.cmdline())]
    return found[0] if found else None


def test_a_drafter_on_a_host_is_used_and_changes_no_word(app: Any, client: OpenAI) -> None:
    wait_for(lambda: far(client, temperature=0)[1] > 0)
    for parameters in ({"temperature": 0}, {"temperature": 1.0, "seed": 3}):
        assert far(client, **parameters)[0] == plain(client, **parameters)
    assert host_pid(app) is not None


def states(app: Any, name: str) -> list[str]:
    (found,) = [each for each in drafters(app) if each["id"] == name] or [{"states": []}]
    return list(found["states"])


def drafters(app: Any) -> list[dict[str, Any]]:
    answer = httpx.get(f"{app.url}/v1/drafters", headers=app.login, timeout=30)
    listed: list[dict[str, Any]] = answer.json()["data"]
    return listed


def test_drafters_come_rest_and_go_under_a_stream(app: Any, client: OpenAI) -> None:
    url, names = f"{app.url}/v1/drafters", ("new-here", "new-there")
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": 96}
    alone = plain(client, **asked)

    def uses(name: str) -> bool:
        hedgerow = {"drafters": [name], "selector": "ucbspec"}
        return ask(client, hedgerow, name=name, temperature=0)[1] > 0

    with ThreadPoolExecutor(1) as threads, httpx.Client(headers=app.login, timeout=30) as operator:
        stream = threads.submit(ask, client, {}, **asked)
        for name, host in zip(names, (None, "domains"), strict=True):
            section = {"name": name, "kind": "prompt_lookup", "max_draft_length": 8, "host": host}
            assert operator.post(url, json=section).status_code == 202
        for name in names:
            wait_for(lambda name=name: states(app, name) == ["ready"])  # type: ignore[misc]
            wait_for(lambda name=name: uses(name))  # type: ignore[misc]
            operator.patch(f"{url}/{name}", json={"enabled": False})
        for name in names:
            wait_for(lambda name=name: states(app, name) == ["disabled"])  # type: ignore[misc]
            assert not uses(name)
            assert operator.delete(f"{url}/{name}").status_code == 202
        wait_for(lambda: not any(states(app, name) for name in names))
        assert stream.result()[0] == alone


def test_a_stopped_host_costs_no_stream_a_word_and_goes_on_later(app: Any, client: OpenAI) -> None:
    asked: list[dict[str, Any]] = [
        {"prompt": f"{REPEATING} {i}", "temperature": i % 2, "seed": i, "max_tokens": 12}
        for i in range(16)
    ]

    def all_of(ask: Callable[..., object], disturb: Callable[[], object]) -> list[object]:
        with ThreadPoolExecutor(16) as threads:
            answers = [threads.submit(ask, client, **parameters) for parameters in asked]
            wait_for(lambda: app.metric("num_requests_running") > 0)
            disturb()
            return [answer.result() for answer in answers]

    alone, pid = all_of(plain, lambda: None), host_pid(app)
    assert pid is not None
    assert all_of(far_text, partial(os.kill, pid, signal.SIGSTOP)) == alone
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: far(client, temperature=0)[1] > 0)
