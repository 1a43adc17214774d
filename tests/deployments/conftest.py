"""The HTTP application on a fake engine, with a tokenizer; and a router on a real Redis."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_serving import FakeEngine, FakeTarget, Server, Serving
from statistics_backends import server
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from cluster.limits.limiter import Limiter
from cluster.limits.memory import MemoryLimiter
from cluster.limits.usage import MemoryUsage
from cluster.settings import Limits, Resume
from cluster.tenants.memory import MemoryTenants
from cluster.tenants.tenant import Tenant
from deployments.admission import Admission
from deployments.authentication import Authentication
from deployments.gateway import Gateway
from deployments.http import build_http
from deployments.router import Router
from engine.text import Text
from engine.token_bytes import byte_level_alphabet

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' and loop.first %}"
    "{{ raise_exception('must start with the user') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n{% endfor %}"
)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose tokens are single bytes, with an end token and a chat template."""
    folder = tmp_path_factory.mktemp("model")
    vocab = {character: index for index, character in enumerate(sorted(byte_level_alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def text(model_dir: Path) -> Text:
    return Text.load(model_dir)


@pytest.fixture
def serving(text: Text) -> Serving:
    """`async with serving(limits, **engine) as server`."""

    @asynccontextmanager
    async def serve(
        limits: Limits | None = None, limiter: Limiter | None = None, **engine: Any
    ) -> AsyncIterator[Server]:
        fake = FakeEngine(text, **engine)
        target = FakeTarget(fake)
        gateway = Gateway(target, text, limits or Limits(), Resume(max_losses=0))
        tenants = MemoryTenants(time.monotonic)
        authentication = Authentication(tenants)
        usage = MemoryUsage()
        admission = Admission(limiter or MemoryLimiter(time.monotonic), usage)
        http = build_http(gateway, authentication, admission)
        transport = httpx.ASGITransport(http, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            server = Server(fake, target, gateway, client, http, tenants, admission, usage)
            client.headers.update(server.login(Tenant(name="tests", role="operator")))
            yield server
        target.thread.stop()
        gateway.close()
        authentication.close()
        admission.close()

    return serve


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    with server("wheel", tmp_path) as running:
        monkeypatch.setenv("REDIS_URL", running.url)
        yield Router({})
