"""Many at once, hanging up, and settings that change while the application runs."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openai import OpenAI

MODEL = "smollm2-135m-instruct"
MIX: list[dict[str, Any]] = [
    {"prompt": "Once upon a time", "temperature": 0},
    {"prompt": "Once upon a time", "temperature": 1.0, "seed": 1},
    {"prompt": "Once upon a hill", "temperature": 0.7, "seed": 2, "top_p": 0.9},
    {"prompt": "one two one two one two one", "temperature": 0},
    {"prompt": "x" * 300, "temperature": 1.0, "seed": 3, "frequency_penalty": 0.5},
    {"prompt": "List: a, b, c, a, b,", "temperature": 0, "stop": ["zzz"], "logprobs": 1},
    {"prompt": "世界", "temperature": 1.0, "seed": 4, "n": 2},
]


def ask(client: OpenAI, parameters: dict[str, Any]) -> list[str]:
    answer = client.completions.create(model=MODEL, max_tokens=20, **parameters)
    return [choice.text for choice in answer.choices]


def test_concurrent_requests_get_what_each_gets_alone(client: OpenAI) -> None:
    alone = [ask(client, parameters) for parameters in MIX]
    with ThreadPoolExecutor(len(MIX)) as threads:
        together = list(threads.map(lambda parameters: ask(client, parameters), MIX))
    assert together == alone


UNWATCHED = {"x-request-disconnect-disabled": "?1", "x-request-timeout-seconds": "0"}


@pytest.mark.parametrize(
    ("stream", "steering"),
    [(False, {}), (True, {}), (False, UNWATCHED)],
    ids=["whole", "stream", "told to Ray not to watch"],
)
def test_hanging_up_stops_the_work_and_frees_its_cache(
    app: Any, stream: bool, steering: dict[str, str]
) -> None:
    app.wait_until_idle()
    before = app.metric("generation_tokens_total")
    body = {"model": MODEL, "prompt": "Count:", "max_tokens": 1500, "stream": stream, "n": 2}
    body["ignore_eos"] = True
    timeout = httpx.Timeout(30, read=1.0 if not stream else 30)
    with httpx.Client(timeout=timeout, headers=app.login | steering) as http:
        if stream:
            with http.stream("POST", f"{app.url}/v1/completions", json=body) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post(f"{app.url}/v1/completions", json=body)
    app.wait_until_idle(timeout_s=5)
    assert app.metric("generation_tokens_total") - before < 500
    usage = app.metric("kv_cache_usage_perc")
    app.wait_until_idle()
    assert app.metric("kv_cache_usage_perc") <= usage < 0.5


def test_clients_that_vanish_at_random_points_leave_no_cache_in_use(app: Any) -> None:
    """200 of them, 25 at once, with streams and without; the last one's blocks are free at once."""
    app.wait_until_idle()
    rng = random.Random(7)
    num_before = app.metric("num_requests_finished_total")

    async def vanish(http: httpx.AsyncClient, i: int) -> None:
        body = {"model": MODEL, "prompt": f"Count to {i}:", "max_tokens": 500, "ignore_eos": True}
        with suppress(TimeoutError):
            async with asyncio.timeout(rng.uniform(0.0, 0.6)):
                await http.post("/v1/completions", json=body | {"stream": i % 2 == 0})

    async def vanish_all() -> None:
        limits = httpx.Limits(max_connections=25)
        async with httpx.AsyncClient(
            base_url=app.url, headers=app.login, limits=limits, timeout=60
        ) as http:
            for first in range(0, 200, 25):
                await asyncio.gather(*(vanish(http, first + i) for i in range(25)))

    asyncio.run(vanish_all())
    deadline_s = time.monotonic() + 1.0
    while app.metric("kv_cache_usage_perc"):
        assert time.monotonic() < deadline_s, "blocks are held for clients that have gone"
    assert app.metric("num_requests_finished_total") - num_before >= 50


def test_speculation_is_switched_off_and_on_without_a_restart(app: Any, client: OpenAI) -> None:
    prompt = "one two three one two three one two three one two"
    parameters: dict[str, Any] = {"prompt": prompt, "temperature": 0}
    before, pid = ask(client, parameters), app.replica_pids()["Target"]
    assert num_draft_tokens(client, parameters) > 0
    try:
        deploy(app, "off")
        wait_for(lambda: num_draft_tokens(client, parameters) == 0)
        assert ask(client, parameters) == before
    finally:
        deploy(app, "on")
    wait_for(lambda: num_draft_tokens(client, parameters) > 0)
    assert app.replica_pids()["Target"] == pid


def num_draft_tokens(client: OpenAI, parameters: dict[str, Any]) -> int:
    usage = client.completions.create(model=MODEL, max_tokens=20, **parameters).usage
    assert usage is not None
    assert usage.model_extra is not None
    found: int = usage.model_extra["speculation"]["num_draft_tokens"]
    return found


def wait_for(condition: Any, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s


def deploy(app: Any, speculation: str) -> None:
    """Ray's own command, with an edited file."""
    running: Path = app.folder / "ray_config.yaml"
    document = yaml.safe_load(running.read_text())
    (target,) = (d for d in document["applications"][0]["deployments"] if d["name"] == "Target")
    target["user_config"]["speculation"] = speculation
    edited = app.config.with_name("edited.yaml")
    edited.write_text(yaml.safe_dump(document))
    log = (app.folder / "serve.log").read_text()
    dashboard = re.search(r"View the dashboard at \S*?(127\.0\.0\.1:\d+)", log)
    assert dashboard is not None, log
    address = f"http://{dashboard[1]}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(app.folder / "token")}
    serve = str(Path(sys.executable).with_name("serve"))
    done = subprocess.run(
        [serve, "deploy", "--address", address, str(edited)],
        env={**os.environ, **token},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_ingress_process_has_no_torch_in_it(app: Any) -> None:
    (ingress,) = (pid for name, pid in app.replica_pids().items() if "Ingress" in name)
    (target,) = (pid for name, pid in app.replica_pids().items() if "Target" in name)
    assert "libtorch" in Path(f"/proc/{target}/maps").read_text()
    assert "libtorch" not in Path(f"/proc/{ingress}/maps").read_text()
