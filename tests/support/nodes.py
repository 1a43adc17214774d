"""A cluster of several nodes on this machine, two with a pretended GPU: prints what became of it.

A target on the head, three hosts that book a GPU each, and streams while a host's process and then
a host's whole node are killed. Run as a program, since a Ray of a test's own must not be another's.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from deployments.startup import ray_environment
from engine.request import DrafterUse, GenerationRequest, SamplingParams, SpeculationOptions

HOSTS = ("code", "math", "chat")
APP = "hedgerow"
WAIT_S = 180.0
NUM_STREAMS = 16
NUM_TOKENS = 32
PROMPT = tuple(range(100, 140)) * 2


def config() -> dict[str, Any]:
    return {
        "target": {"numerics": "invariant", "num_threads": 1},
        "drafters": [
            {"name": name, "kind": "prompt_lookup", "max_draft_length": 8, "host": name}
            for name in HOSTS
        ],
        "hosts": [
            {"name": name, "num_gpus": 1, "num_cpus": 0, "num_threads": 1, "draft_timeout_s": 2.0}
            for name in HOSTS
        ],
    }


def requests(prefix: str, drafter: str | None) -> list[GenerationRequest]:
    """The same for every prefix; without a drafter it is plain decoding."""
    options = SpeculationOptions(() if drafter is None else (drafter,), None, drafter)
    return [
        GenerationRequest(
            f"{prefix} {i}",
            PROMPT[i:],
            NUM_TOKENS,
            SamplingParams(temperature=i % 2, seed=i),
            ignore_eos=True,
            speculation=options,
        )
        for i in range(NUM_STREAMS)
    ]


class Application:
    """The application's deployments, as their handles and Serve see them."""

    def __init__(self, serve: Any) -> None:
        self._serve = serve
        self.target = serve.get_deployment_handle("Target", APP)

    def details(self) -> dict[str, Any]:
        client = self._serve.context._get_global_client()
        found: dict[str, Any] = client.get_serve_details()["applications"][APP]["deployments"]
        return found

    def node_of(self, deployment: str) -> str:
        (replica,) = self.details()[deployment]["replicas"]
        return str(replica["node_id"])

    def generate(self, asked: Sequence[GenerationRequest]) -> tuple[list[list[int]], int]:
        """The tokens of each, and how many drafted ones were accepted."""

        def one(request: GenerationRequest) -> tuple[list[int], int]:
            ids, use = [], DrafterUse()
            for emissions in self.target.options(stream=True).generate.remote([request]):
                for emission in emissions:
                    ids += emission.token_ids
                    use = next(iter(emission.use.per_drafter.values()), use)
            return ids, use.num_accepted_tokens

        with ThreadPoolExecutor(len(asked)) as threads:
            said = list(threads.map(one, asked))
        return [ids for ids, _ in said], sum(accepted for _, accepted in said)


def wait_for(condition: Callable[[], object]) -> float:
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < WAIT_S, "waited in vain"
        time.sleep(0.2)
    return time.monotonic() - started_s


def kill_host(name: str) -> None:
    below = psutil.Process().children(recursive=True)
    (pid,) = (p.pid for p in below if f"Drafter-{name}" in " ".join(p.cmdline()))
    os.kill(pid, signal.SIGKILL)


def run(cluster: Any, gpu_nodes: dict[str, Any]) -> dict[str, Any]:
    from ray import serve
    from ray.serve.api import _run

    from deployments.app import build_app

    serve.start(proxy_location="Disabled")
    _run(build_app(config()), name=APP, route_prefix="/", _blocking=False)
    app = Application(serve)

    def is_running(name: str) -> bool:
        replicas = app.details().get(name, {}).get("replicas", [])
        return [replica["state"] for replica in replicas] == ["RUNNING"]

    def num_running() -> int:
        return sum(is_running(f"Drafter-{name}") for name in HOSTS)

    def is_used(name: str) -> bool:
        return app.generate(requests(f"{name} {time.monotonic()}", name)[:1])[1] > 0

    def add_node() -> None:
        node = cluster.add_node(num_cpus=0, num_gpus=1)
        gpu_nodes[node.node_id] = node

    wait_for(lambda: is_running("Target") and num_running() == 2)
    (left_over,) = (name for name in HOSTS if not is_running(f"Drafter-{name}"))
    used, lost = (name for name in HOSTS if name != left_over)
    pending = app.details()[f"Drafter-{left_over}"]["message"]
    add_node()
    wait_for(lambda: num_running() == 3)
    selectors = {
        name: {"name": "fixed", "drafter": name, "draft_length": 8} for name in HOSTS
    }  # fmt: skip
    app.target.reconfigure.remote({"selectors": selectors}).result()
    plain, _ = app.generate(requests("plain", None))
    wait_for(lambda: is_used(used))
    said, accepted = app.generate(requests("remote", used))
    found: dict[str, Any] = {
        "nodes": {name: app.node_of(name) for name in ("Target", *(f"Drafter-{n}" for n in HOSTS))},
        "pending": pending,
        "remote": said == plain,
        "accepted": accepted,
    }

    def disturb(kind: str, name: str, kill: Callable[[], object]) -> None:
        wait_for(lambda: is_used(name))
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(app.generate, requests(f"{kind} disturbed", name))
            time.sleep(1.0)
            kill()
            found[f"killed_{kind}"] = answer.result()[0] == plain
        if kind == "node":
            add_node()
        found[f"{kind}_recovery_s"] = wait_for(lambda: is_used(name))

    disturb("process", used, lambda: kill_host(used))
    node = gpu_nodes[app.node_of(f"Drafter-{lost}")]
    disturb("node", lost, lambda: cluster.remove_node(node, allow_graceful=False))
    return found


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="hn-"))
    os.environ.update(ray_environment(folder), HEDGEROW_TRANSPORT_SECRET=secrets.token_hex(32))
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, True, {"num_cpus": 2, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=0, num_gpus=1) for _ in range(2)]
        print(json.dumps(run(cluster, {node.node_id: node for node in nodes})))
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
