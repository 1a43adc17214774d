"""A Redis with its replica behind a proxy, and the application that is told of the proxy alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fault_proxy import FaultProxy
from benchmarks.login import own_tenants
from cluster.embedded_redis import find_server
from cluster.statistics.cells import SurvivalCell, cell_of
from cluster.statistics.client import connect
from cluster.statistics.keys import Table
from cluster.statistics.redis_store import RedisStore, pools
from cluster.statistics.store import Batch, Lifetimes, StoreError
from cluster.yaml_file import read_yaml, write_yaml

START_S = 300.0
NUM_REPLICAS = 2


@dataclass(slots=True)
class Servers:
    """A Redis and its replica behind the proxy. `port` is the one that leads."""

    folder: Path
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    port: int = 0

    def start(self, port: int = 0, leader: int = 0) -> int:
        """On a free port, or again on an earlier one with its data."""
        port = port or free_port()
        data = self.folder / str(port)
        data.mkdir(exist_ok=True)
        arguments = ["--port", port, "--bind", "127.0.0.1", "--dir", data, "--appendonly", "yes"]
        arguments += ["--save", "", "--repl-diskless-sync-delay", "0"]
        if leader:
            arguments += ["--replicaof", "127.0.0.1", leader]
        command = [str(find_server()), *map(str, arguments)]
        self.processes[port] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        if wait_for(lambda: self.is_up(port), 20.0) is None:
            raise SystemExit(f"{find_server()} does not answer on port {port}")
        return port

    def is_up(self, port: int) -> bool:
        with suppress(Exception), connect(f"redis://127.0.0.1:{port}", 1.0) as client:
            return bool(client.ping())
        return False

    def command(self, *words: str, port: int = 0) -> object:
        with connect(f"redis://127.0.0.1:{port or self.port}", 5.0) as client:
            answer: object = client.execute_command(*words)
            return answer

    def kill(self) -> None:
        self.processes[self.port].kill()
        self.processes[self.port].wait()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def teach_that_drafts_fail(self, drafter: str, num_contexts: int) -> None:
        """As another target would, after a million drafts in every context."""
        with connect(f"redis://127.0.0.1:{self.port}", 5.0) as client:
            ((_, pool),) = pools(client)
            store = RedisStore(client, pool)
            reading = store.read({}, 0)
            cells = [SurvivalCell(drafter, c, 1, "at_risk") for c in range(num_contexts)]
            for tenant in {table.tenant for table in reading.versions}:
                table = Table(tenant, Lifetimes().epoch(reading.now_us))
                store.merge(Batch(table, "another", 0, 1, {cell.name: 10**6 for cell in cells}))

    def accepted(self) -> Counter[str]:
        """By drafter, the accepted tokens that the store has; nothing while it cannot be asked."""
        found: Counter[str] = Counter()
        with suppress(StoreError), connect(f"redis://127.0.0.1:{self.port}", 5.0) as client:
            for _, pool in pools(client):
                for state in RedisStore(client, pool).read({}, 999).tables.values():
                    for name, count in state.cells.items():
                        cell = cell_of(name)
                        if isinstance(cell, SurvivalCell) and cell.count == "passed":
                            found[cell.drafter] += count
        return +found


@contextmanager
def running_servers(folder: Path) -> Iterator[tuple[Servers, FaultProxy]]:
    servers = Servers(folder)
    try:
        servers.port = servers.start()
        servers.start(leader=servers.port)
        proxy = FaultProxy(servers.port)
        yield servers, proxy
        proxy.close()
    finally:
        servers.close()


@contextmanager
def running_app(folder: Path, redis_port: int) -> Iterator[str]:
    """The URL of ray_config.yaml's application, with two targets and two routers.

    Its selector hears of chosen drafts alone, so that the answers tell all that is counted.
    """
    document: Any = read_yaml(Path("ray_config.yaml"))
    deployments = document["applications"][0]["deployments"]
    (target,) = [each for each in deployments if each["name"] == "Target"]
    target["user_config"]["selector"]["evaluation_share"] = 0.0
    target["num_replicas"] = NUM_REPLICAS
    deployments.append({"name": "Router", "num_replicas": NUM_REPLICAS})
    config, port = folder / "ray_config.yaml", free_port()
    write_yaml(config, document)
    command = [sys.executable, "-m", "deployments.serve", str(config), "--port", str(port)]
    log_file = folder / "app.log"
    with own_tenants(folder / "tenants") as tenants, log_file.open("wb") as log:
        environment = {**os.environ, **tenants, "REDIS_URL": f"redis://127.0.0.1:{redis_port}"}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            if wait_for(lambda: b"Ctrl-C ends it" in log_file.read_bytes(), START_S) is None:
                raise SystemExit(log_file.read_text(errors="replace"))
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60.0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], timeout_s: float) -> float | None:
    """The seconds that it took, None if it took longer."""
    start_s = time.monotonic()
    while not condition():
        if time.monotonic() - start_s > timeout_s:
            return None
        time.sleep(0.05)
    return time.monotonic() - start_s
