"""`python -m benchmarks.overload`: ten times more requests than can be answered, for a minute.

Starts the application with a short queue, warms it up, finds its peak with as many clients as it
runs sequences, and then lets requests arrive at ten times that rate. Prints goodput against the
peak, how fast and how politely the rest is refused, and how much the processes' memory grew. The
exit status is 1 if a figure is not the wanted one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.fault_servers import START_S, free_port, wait_for
from benchmarks.load import run_load, write_report
from benchmarks.load_client import LoadClient, Record
from benchmarks.load_plan import Request, TenantLoad, requests
from benchmarks.load_report import summary
from benchmarks.login import api_key, own_tenants
from benchmarks.machine import describe_machine, is_quick
from benchmarks.spread import print_table
from cluster.yaml_file import read_yaml, write_yaml

MODEL = "smollm2-135m-instruct"
TIMES = 10.0
MAX_QUEUE_LENGTH = 32
NUM_CLIENTS = 32
WANTED: dict[str, Callable[[float], bool]] = {
    "goodput": lambda share: share >= 0.9,
    "num_refused": lambda number: number > 0,
    "num_failed": lambda number: number == 0,
    "refusal_p50_ms": lambda ms: ms <= 20,
    "num_without_retry_after": lambda number: number == 0,
    "memory_growth": lambda share: share <= 0.05,
}
FOLDER = Path(__file__).parents[1] / "build"


@dataclass(frozen=True, slots=True)
class Size:
    warm_s: float
    peak_s: float
    overload_s: float
    max_tokens: int


FULL = Size(warm_s=30.0, peak_s=60.0, overload_s=60.0, max_tokens=32)
QUICK = Size(warm_s=10.0, peak_s=20.0, overload_s=20.0, max_tokens=16)


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    process: psutil.Process

    def memory_mb(self) -> float:
        """Resident in Serve's replicas and its proxy, in MiB."""
        total = 0.0
        for child in self.process.children(recursive=True):
            with suppress(psutil.Error):
                title = " ".join(child.cmdline())
                if "ServeReplica" in title or "ProxyActor" in title:
                    total += child.memory_info().rss / 2**20
        return total


@contextmanager
def application(folder: Path) -> Iterator[Running]:
    document: Any = read_yaml(Path("ray_config.yaml"))
    document["applications"][0]["args"]["target"]["max_queue_length"] = MAX_QUEUE_LENGTH
    config, port, log_file = folder / "ray_config.yaml", free_port(), folder / "app.log"
    write_yaml(config, document)
    command = [sys.executable, "-m", "deployments.serve", str(config), "--port", str(port)]
    with own_tenants(folder / "tenants") as tenants, log_file.open("wb") as log:
        environment = {**os.environ, **tenants, "HEDGEROW_STATE": str(folder / "state")}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            if wait_for(lambda: b"Ctrl-C ends it" in log_file.read_bytes(), START_S) is None:
                raise SystemExit(log_file.read_text(errors="replace"))
            yield Running(f"http://127.0.0.1:{port}/v1", psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60.0)


async def closed_loop(url: str, tenant: TenantLoad, duration_s: float) -> list[Record]:
    """What NUM_CLIENTS get that each wait for their answer before they ask again."""
    records: list[Record] = []
    asked: Iterator[Request] = itertools.cycle(list(requests(tenant, 100.0, seed=1)))
    connector, start_s = aiohttp.TCPConnector(limit=0), time.monotonic()
    async with aiohttp.ClientSession(connector=connector) as session:
        client = LoadClient(session, url, MODEL)

        async def work() -> None:
            while (at_s := time.monotonic() - start_s) < duration_s:
                record = await client.ask(next(asked), time.monotonic())
                record.at_s = at_s
                records.append(record)

        await asyncio.gather(*(work() for _ in range(NUM_CLIENTS)))
    return records


def main() -> int:
    size = QUICK if is_quick() else FULL
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder, application(Path(folder)) as app:
        tenant = TenantLoad("all", 1.0, api_key(), max_tokens=size.max_tokens)
        asyncio.run(closed_loop(app.url, tenant, size.warm_s))
        records = asyncio.run(closed_loop(app.url, tenant, size.peak_s))
        peak = summary(records, {"all": 1.0}, size.peak_s)["all"]
        if not peak["requests_per_s"]:
            raise SystemExit(f"nothing was answered: {peak['reasons']}")
        before_mb = app.memory_mb()
        rate_per_s = TIMES * peak["requests_per_s"]
        flood = TenantLoad("all", rate_per_s, api_key(), max_tokens=size.max_tokens)
        records = asyncio.run(run_load(app.url, MODEL, [flood], size.overload_s))
        found = summary(records, {"all": 1.0}, size.overload_s)
        after_mb = app.memory_mb()
    write_report(FOLDER, "Overload", found, records)
    figures = figures_of(peak, found["all"], after_mb / before_mb - 1)
    rows = [(name, f"{value:.4g}") for name, value in figures.items() if value is not None]
    print_table(f"{TIMES:g} times the peak", ("figure", "value"), rows)
    missed = [name for name, holds in WANTED.items() if not holds(figures[name] or 0.0)]
    print(json.dumps({"overload": figures, "missed": missed}))
    return 1 if missed else 0


def figures_of(
    peak: dict[str, Any], flood: dict[str, Any], memory_growth: float
) -> dict[str, float | None]:
    return {
        "peak_tokens_per_s": peak["tokens_per_s"],
        "peak_requests_per_s": peak["requests_per_s"],
        "goodput": flood["tokens_per_s"] / peak["tokens_per_s"],
        "num_requests": flood["num_requests"],
        "num_answered": flood["num_answered"],
        "num_refused": flood["num_refused"],
        "num_failed": flood["num_failed"],
        "refusal_p50_ms": _ms(flood["refusal_s"]["p50"]),
        "refusal_p99_ms": _ms(flood["refusal_s"]["p99"]),
        "num_without_retry_after": flood["num_without_retry_after"],
        "memory_growth": memory_growth,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


if __name__ == "__main__":
    sys.exit(main())
