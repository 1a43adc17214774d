"""Ours: the application that `make serve` runs, and its engine alone.

Every cell is a tenant of its own, so that it finds no prefix and no answer of another.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.fault_servers import free_port
from benchmarks.login import own_tenants
from benchmarks.peers.answers import Answer
from benchmarks.peers.client import Endpoint, ask
from benchmarks.peers.engine_worker import CONFIG, fixed_arms, served
from benchmarks.peers.exported import FOLDER
from benchmarks.peers.process_tree import started, wait_until
from benchmarks.peers.system import (
    BFLOAT16,
    FLOAT32,
    HALF_WEIGHTS,
    NUM_THREADS,
    PLAIN,
    Running,
    System,
    log_of,
    working,
)
from benchmarks.peers.workload import Cell
from benchmarks.workbench import MODEL
from cluster.tenants.address import tenants_client
from cluster.tenants.api_key import new_key
from cluster.tenants.redis_store import RedisTenants
from cluster.tenants.tenant import Tenant
from cluster.yaml_file import read_yaml, write_yaml
from engine.linear import packs
from engine.quantisation import can_widen

SURVIVAL = "survival"
RULE = "rule"
SERVED_THREADS = int(served()["target"]["num_threads"])
_READY = "Ctrl-C ends it"
_NARROWED: dict[str, dict[str, object]] = {
    PLAIN: {"hedgerow": {"drafters": []}},
    RULE: {"hedgerow": {"selector": RULE}},
    SURVIVAL: {},
}


@dataclass(slots=True)
class _Application:
    pid: int
    url: str
    environment: dict[str, str]
    num_cells: int = 0

    def ask(self, cell: Cell, mode: str) -> list[Answer]:
        headers = {"Authorization": f"Bearer {self._new_tenant()}"}
        return ask(Endpoint(f"{self.url}/v1", MODEL, _NARROWED[mode], headers), cell)

    def _new_tenant(self) -> str:
        """Its key."""
        key, name = new_key(), f"cell-{self.num_cells}"
        self.num_cells += 1
        with tenants_client(self.environment) as (client, _):
            store = RedisTenants(lambda: client)
            store.put(Tenant(name=name), None)
            store.add_key(name, key.key_id, key.digest, 0.0)
        return key.text


@contextmanager
def _start_application(
    name: str, changes: Mapping[str, str], modes: Sequence[str]
) -> Iterator[Running]:
    """With `changes` of its target."""
    config, log = FOLDER / f"ray_config-{name}.yaml", log_of(name)
    document: Any = read_yaml(CONFIG)
    document["applications"][0]["args"]["target"].update(changes)
    write_yaml(config, document)
    port, root = free_port(), str(CONFIG.parent)
    command = [sys.executable, "-m", "deployments.serve", str(config), "--port", str(port)]
    with tempfile.TemporaryDirectory() as name, own_tenants(Path(name) / "tenants") as tenants:
        state = {"HEDGEROW_STATE": str(Path(name) / "state"), "REDIS_URL": "", "PYTHONPATH": root}
        environment = {**tenants, **state}
        with started(command, environment, log) as process:
            wait_until(lambda: _READY in log.read_text(errors="replace"), process, log)
            url = f"http://127.0.0.1:{port}"
            yield _Application(process.pid, url, {**os.environ, **tenants})


def _start_engine(num_threads: int, modes: Sequence[str]) -> AbstractContextManager[Running]:
    return working("benchmarks.peers.engine_worker", num_threads)


def _measures(mode: str, cell: str) -> bool:
    """Fixed arms only where they are compared with what chooses among them."""
    return mode in _NARROWED or cell in ("1", "8")


def _application(
    name: str, precision: str, about: str, missing: Callable[[], str | None], **changes: str
) -> System:
    return System(
        name=name,
        precision=precision,
        about=about,
        starts=(tuple(_NARROWED),),
        start=functools.partial(_start_application, name, changes),
        missing=missing,
        is_ours=True,
    )


def _lacks_bfloat16() -> str | None:
    return None if packs(torch.bfloat16) else "this processor does not multiply bfloat16"


def _lacks_widening() -> str | None:
    return None if can_widen() else "there is no kernel for this processor"


SYSTEM = _application(
    "hedgerow",
    FLOAT32,
    "the application of make serve, as ray_config.yaml has it: threads of its target: "
    f"{SERVED_THREADS}, hosts beside it: {len(served().get('hosts', ()))}",
    lambda: None,
)
ENGINE = System(
    name="hedgerow-engine",
    precision=FLOAT32,
    about="its engine alone, all drafters in its process",
    starts=((*_NARROWED, *fixed_arms()),),
    start=functools.partial(_start_engine, NUM_THREADS),
    measures=_measures,
    is_ours=True,
)
HALF = _application(
    "hedgerow-bfloat16",
    BFLOAT16,
    "the same application with `dtype: bfloat16`, a setting of its target",
    _lacks_bfloat16,
    dtype=BFLOAT16,
)
QUANTISED = _application(
    "hedgerow-float16",
    HALF_WEIGHTS,
    "the same application with `quantization: float16`, a setting of its target",
    _lacks_widening,
    quantization="float16",
)
AS_SERVED = System(
    name="hedgerow-bare",
    precision=FLOAT32,
    about=f"its engine alone, with the application's threads ({SERVED_THREADS})",
    starts=((PLAIN, SURVIVAL),),
    start=functools.partial(_start_engine, SERVED_THREADS),
    measures=lambda mode, cell: cell == "8",
    is_ours=True,
)
