"""`python -m benchmarks.slow_readers`: readers at full speed beside 32 that do not read.

A few layers of the embedded model and the HTTP application in one process, behind a server that
feels its clients' flow control. The slow ones ask for long answers and take the first bytes alone.
The median time of a token of four others, beside them and without them, in pairs. The last line
printed is one JSON object; the exit status is 1 above 1.1. QUICK=1: one pair.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn

from benchmarks.machine import describe_machine, is_quick
from benchmarks.shallow_model import write_shallow_model
from benchmarks.workbench import MODEL
from cluster.drafter_changes import DrafterChange
from cluster.limits.memory import MemoryLimiter
from cluster.limits.usage import MemoryUsage
from cluster.settings import Limits, Resume
from cluster.statistics.health import StoreHealth
from cluster.tenants.api_key import new_key
from cluster.tenants.memory import MemoryTenants
from cluster.tenants.tenant import Tenant
from deployments.admission import Admission
from deployments.authentication import Authentication
from deployments.engine_thread import EngineThread
from deployments.gateway import Gateway
from deployments.http import build_http
from deployments.model_card import ModelCard
from deployments.route import ANYWHERE, Route
from deployments.router_store import Unreachable
from deployments.target_counters import TargetCounters
from engine.build import build_engine
from engine.config import TargetConfig
from engine.model_files import resolve_model
from engine.request import Emission, GenerationRequest
from engine.text import Text

NUM_LAYERS = 4
NUM_SLOW = 32
NUM_QUICK = 4
SLOW_TOKENS, QUICK_TOKENS = 1500, 150
MAX_BUFFERED_TOKENS = 64
MAX_RATIO = 1.1
SETTLE_S = 300.0
KEY = new_key()
HEADERS = {"Authorization": f"Bearer {KEY.text}"}


class LocalTarget:
    """A target in this process."""

    def __init__(self, config: TargetConfig) -> None:
        self.engine = build_engine(config, [])
        self.thread = EngineThread(self.engine, pulse_s=1.0)

    async def describe(self) -> ModelCard:
        longest = self.engine.max_sequence_length
        return ModelCard(MODEL, self.engine.vocab_size, longest, "local", int(time.time()))

    async def counters(self) -> list[TargetCounters]:
        return []

    async def selectors(self) -> list[dict[str, object]]:
        return []

    async def change_drafters(self, change: DrafterChange) -> Unreachable:
        return Unreachable("there is no store")

    async def store_health(self) -> StoreHealth:
        return StoreHealth()

    def suspect(self, route: Route) -> None:
        raise AssertionError("there is no other target")

    @property
    def has_others(self) -> bool:
        return False

    def generate(
        self, requests: Sequence[GenerationRequest], route: Route = ANYWHERE
    ) -> AsyncGenerator[list[Emission], None]:
        return self.thread.generate(requests)


def main() -> int:
    print(describe_machine())
    with tempfile.TemporaryDirectory() as name:
        folder = write_shallow_model(resolve_model(MODEL), NUM_LAYERS, Path(name))
        config = TargetConfig(str(folder), num_kv_tokens=65536, max_num_sequences=64)
        ratios, held = asyncio.run(measure(config, Text.load(folder)))
    ratio = statistics.median(ratios)
    print(f"a token's median time beside {NUM_SLOW} slow readers, to without: {ratios}")
    print(json.dumps({"median_ratio": round(ratio, 3), "kv_blocks_held_by_slow": held}))
    return 0 if ratio <= MAX_RATIO and not held else 1


async def measure(config: TargetConfig, text: Text) -> tuple[list[float], int]:
    """Ratios of pairs; KV blocks in use while all slow readers sit there."""
    target = LocalTarget(config)
    patient = Resume(max_buffered_tokens=MAX_BUFFERED_TOKENS, slow_client_timeout_s=3600.0)
    gateway = Gateway(target, text, Limits(), patient)
    ratios, most_held = [], 0
    try:
        async with serving(gateway) as port:
            await quick_median_s(port)
            for _ in range(1 if is_quick() else 5):
                alone_s = await quick_median_s(port)
                slow = [await slow_reader(port, i) for i in range(NUM_SLOW)]
                most_held = max(most_held, await settled(target))
                ratios.append(round(await quick_median_s(port) / alone_s, 3))
                for writer in slow:
                    writer.transport.abort()
                await settled(target)
    finally:
        target.thread.stop()
        gateway.close()
    return ratios, most_held


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)  # connections inherit it
    tenants = MemoryTenants(time.monotonic)
    tenants.put(Tenant(name="readers"), None)
    tenants.add_key("readers", KEY.key_id, KEY.digest, None)
    admission = Admission(MemoryLimiter(time.monotonic), MemoryUsage())
    http = build_http(gateway, Authentication(tenants), admission)
    server = uvicorn.Server(uvicorn.Config(http, log_level="critical"))
    running = asyncio.ensure_future(server.serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await running


async def slow_reader(port: int, number: int) -> asyncio.StreamWriter:
    """Asks for much, reads a little, and then no more."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    body = json.dumps(asked(f"slow {number}", SLOW_TOKENS) | {"logprobs": 20}).encode()
    head = ["POST /v1/completions HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in HEADERS.items()]
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    await reader.readexactly(100)
    return writer


async def settled(target: LocalTarget) -> int:
    """When nothing is decoded any more; KV blocks that are in use then."""
    deadline_s = time.monotonic() + SETTLE_S
    while await target.thread.run(lambda: target.engine.has_work):
        if time.monotonic() > deadline_s:
            raise SystemExit("the slow readers' answers are still being decoded")
        await asyncio.sleep(0.2)
    return await target.thread.run(lambda: target.engine.counters().num_kv_blocks_used)


async def quick_median_s(port: int) -> float:
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=600) as client:
        found = await asyncio.gather(*(token_times_s(client, i) for i in range(NUM_QUICK)))
    return statistics.median(seconds for each in found for seconds in each)


async def token_times_s(client: httpx.AsyncClient, number: int) -> list[float]:
    times = []
    body = asked(f"quick {number}", QUICK_TOKENS)
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                times.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(times)]


def asked(prompt: str, max_tokens: int) -> dict[str, object]:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    return {**body, "ignore_eos": True, "stream": True}


if __name__ == "__main__":
    sys.exit(main())
