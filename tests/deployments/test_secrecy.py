"""Words of requests, and keys, are in no log, no metric and no Redis of the running application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.tenants.api_key import new_key

MODEL = "smollm2-135m-instruct"
CANARY = "zugzwang-canary-7f3a"
FORGED = new_key().text
MAX_LOG_BYTES = 2**26


def requests() -> Iterator[tuple[str, dict[str, Any] | bytes]]:
    """Bodies that are answered, refused, cut and torn, each with the canary in it."""
    user = {"role": "user", "content": f"Say {CANARY}"}
    chat: dict[str, Any] = {"model": MODEL, "messages": [user], "max_tokens": 4}
    for more in (
        {},
        {"stream": True},
        {"stop": CANARY, "user": CANARY},
        {"logprobs": True, "n": 2},
        {"temperature": CANARY},
        {"model": CANARY},
        {CANARY: 1},
        {"messages": [{"role": CANARY, "content": CANARY}]},
        {"messages": [{"role": "user", "content": [{"type": CANARY, "text": CANARY}]}]},
        {"messages": [user | {"content": f"{CANARY} " * 3000}]},
        {"logit_bias": {CANARY: 1}},
        {"hedgerow": {"drafters": [CANARY]}},
        {"hedgerow": {"selector": CANARY}},
        {"hedgerow": {"timeout_s": 0.001}},
    ):
        yield "/v1/chat/completions", {**chat, **more}
    whole = json.dumps(chat).encode()
    yield "/v1/chat/completions", whole[:-1]
    yield "/v1/chat/completions", whole.replace(b"canary", b"canary\xff")
    yield "/v1/completions", {"model": MODEL, "prompt": [CANARY, CANARY], "max_tokens": 2}


def files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < MAX_LOG_BYTES:
            yield path, path.read_bytes()


@pytest.mark.parametrize("is_cut", [False, True])
def test_canaries_are_found_nowhere(app: Any, is_cut: bool) -> None:
    headers = {**app.login, "User-Agent": "secrecy"}
    with httpx.Client(base_url=app.url, headers=headers, timeout=120) as client:
        statuses = set()
        for path, body in requests():
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            if is_cut:
                with client.stream("POST", path, content=content) as answer:
                    statuses.add(answer.status_code)
            else:
                statuses.add(client.post(path, content=content).status_code)
        assert {200, 400, 404} <= statuses
        for wrong in (FORGED, CANARY, f"{app.key}x"):
            headers = {"Authorization": f"Bearer {wrong}"}
            assert client.get("/v1/models", headers=headers).status_code == 401
        metrics = client.get("/metrics").text
    secrets = [text.encode() for text in (CANARY, app.key, FORGED)]
    assert not [secret for secret in secrets if secret in metrics.encode()]
    logs = [*files(app.folder), *files(app.state)]
    assert any("appendonly" in str(path) for path, _ in logs)
    assert any(path.name.startswith("replica") or "serve" in str(path) for path, _ in logs)
    found = [
        (path, secret)
        for path, content in logs
        for secret in secrets
        if secret in content and path.name != "development-key"
    ]
    assert found == []
    output = app.config.with_name("output").read_bytes()
    assert CANARY.encode() not in output
    assert FORGED.encode() not in output
