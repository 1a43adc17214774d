"""`python -m benchmarks.load`: an open-loop load test of any OpenAI-compatible server.

Requests arrive when they are due, however late earlier answers are, so that a slow server is not
spared. Writes load.json and load.html, and prints the figures as one JSON object at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.load_client import LoadClient, Record
from benchmarks.load_plan import (
    SCENARIOS,
    PlanError,
    Request,
    TenantLoad,
    parse_tenants,
    requests,
    scaled,
)
from benchmarks.load_report import page, summary
from benchmarks.login import api_key
from cluster.tenants.address import tenants_client
from cluster.tenants.api_key import new_key
from cluster.tenants.redis_store import RedisTenants
from cluster.tenants.tenant import Tenant
from cluster.yaml_file import YamlFileError, read_yaml

DRAIN_S = 120.0
FOLDER = Path(__file__).parents[1] / "build"


async def run_load(
    url: str, model: str, tenants: Sequence[TenantLoad], duration_s: float, seed: int = 0
) -> list[Record]:
    """All requests' records, in the order of their arrival; waits for answers at most DRAIN_S."""
    due = sorted(
        (each for tenant in tenants for each in requests(tenant, duration_s, seed)),
        key=lambda request: request.at_s,
    )
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=duration_s + DRAIN_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        client, start_s = LoadClient(session, url, model), time.monotonic()
        tasks = []
        for request in due:
            await asyncio.sleep(max(0.0, start_s + request.at_s - time.monotonic()))
            tasks.append(asyncio.ensure_future(client.ask(request, start_s + request.at_s)))
        _, late = await asyncio.wait(tasks, timeout=DRAIN_S) if tasks else (set(), set())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    return [_result(task, request) for task, request in zip(tasks, due, strict=True)]


def _result(task: asyncio.Future[Record], request: Request) -> Record:
    if task.cancelled():
        hung = Record(request.tenant.name, request.prompt.domain, request.at_s)
        return dataclasses.replace(hung, reason="no end")
    return task.result()


@contextmanager
def keyed(tenants: Sequence[TenantLoad], adds: bool) -> Iterator[tuple[TenantLoad, ...]]:
    """Every tenant with a key: its own, or one of a tenant that is there meanwhile, or ours."""
    if not adds:
        yield tuple(
            each if each.key else dataclasses.replace(each, key=api_key()) for each in tenants
        )
        return
    with tenants_client() as (client, _):
        store, found = RedisTenants(lambda: client), []
        try:
            for each in tenants:
                key = new_key()
                store.put(Tenant(name=f"load-{each.name}", weight=each.weight), None)
                store.add_key(f"load-{each.name}", key.key_id, key.digest, 0.0)
                found.append(dataclasses.replace(each, key=key.text))
            yield tuple(found)
        finally:
            for each in tenants:
                store.remove(f"load-{each.name}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="the API's base URL")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="steady")
    parser.add_argument("--plan", type=Path, help="a YAML list of tenants, instead of a scenario")
    parser.add_argument("--times", type=float, default=1.0, help="of the rates (%(default)g)")
    parser.add_argument("--duration-s", type=float, default=60.0, metavar="S")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument(
        "--add-tenants", action="store_true",
        help="make a tenant for each while it runs, on a Hedgerow whose store is at hand",
    )  # fmt: skip
    options = parser.parse_args()
    try:
        tenants = SCENARIOS[options.scenario]
        if options.plan is not None:
            tenants = parse_tenants(read_yaml(options.plan))
        with keyed(scaled(tenants, options.times), options.add_tenants) as ready:
            records = asyncio.run(
                run_load(options.url, options.model, ready, options.duration_s, options.seed)
            )
    except (PlanError, YamlFileError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    found = summary(records, {each.name: each.weight for each in tenants}, options.duration_s)
    write_report(options.out, f"Load: {options.plan or options.scenario}", found, records)
    print(json.dumps(found))
    return 0


def write_report(
    folder: Path, title: str, found: dict[str, Any], records: Sequence[Record]
) -> None:
    folder.mkdir(exist_ok=True)
    document = {**found, "records": [dataclasses.asdict(record) for record in records]}
    (folder / "load.json").write_text(json.dumps(document, indent=1))
    (folder / "load.html").write_text(page(title, found, records), encoding="utf-8")
    print(f"wrote {folder / 'load.json'} and {folder / 'load.html'}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
