"""`python -m benchmarks.nodes [target]`: hosts on nodes of their own, and what losing them costs.

A cluster of several nodes on this machine: the target on the head, each host on a node with a
pretended GPU, one host more than there are GPUs. A host's process is killed in the middle of 16
streams, of which every other one uses that host; then a host's node, and the router. The last line
printed is one JSON object. Fails if a token differs, if no draft was accepted, or if a stream that
uses no host paused for longer than one deadline and a margin. QUICK=1: the first of these alone.
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
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import is_quick
from deployments.startup import ray_environment
from engine.request import DrafterUse, GenerationRequest, SamplingParams, SpeculationOptions

HOSTS = ("code", "math", "chat")
APP = "hedgerow"
WAIT_S = 180.0
NUM_STREAMS = 16
NUM_TOKENS = 64
NUM_ROUNDS = 3  # of each stream, until something happens to it
PROMPT = tuple(range(100, 140)) * 2
DRAFT_TIMEOUT_S = 2.0  # on a machine that runs a whole cluster
MARGIN_S = 1.0  # of a pause, beside a deadline: what starts anew takes the processors for a while


def config(target: str | None) -> dict[str, Any]:
    """Without a target's folder the default one is served; else it drafts for itself."""
    sized = {"num_gpus": 1, "num_cpus": 0, "num_threads": 1, "draft_timeout_s": DRAFT_TIMEOUT_S}
    drafts = {"kind": "model", "model": target} if target else {"kind": "prompt_lookup"}
    model = {"model": target} if target else {}
    return {
        "target": {"numerics": "invariant", "num_threads": 1, **model},
        "drafters": [
            {"name": name, "max_draft_length": 4, "host": name, **drafts} for name in HOSTS
        ],
        "hosts": [{"name": name, **sized} for name in HOSTS],
    }


def request(name: str, index: int, drafter: str | None) -> GenerationRequest:
    """The same for every name; without a drafter it is plain decoding."""
    options = SpeculationOptions((), None, None) if drafter is None else None
    return GenerationRequest(
        f"{name} {index}",
        PROMPT[index:],
        NUM_TOKENS,
        SamplingParams(temperature=index % 4 // 2, seed=index),
        ignore_eos=True,
        speculation=options or SpeculationOptions((str(drafter),), None, drafter),
    )


def requests(name: str, drafter: str | None) -> list[GenerationRequest]:
    """Every other one uses the drafter."""
    return [request(name, i, drafter if i % 2 == 0 else None) for i in range(NUM_STREAMS)]


@dataclass(slots=True)
class Said:
    """`longest_pause_s` is between two rounds of a stream."""

    ids: list[int] = field(default_factory=list)
    num_accepted: int = 0
    longest_pause_s: float = 0.0


class Application:
    """The application's deployments, as their handles and Serve see them."""

    def __init__(self, serve: Any) -> None:
        self._serve = serve
        self._num_rounds = 0
        self._has_accepted = False
        self.target = serve.get_deployment_handle("Target", APP)

    def details(self) -> dict[str, Any]:
        client = self._serve.context._get_global_client()
        found: dict[str, Any] = client.get_serve_details()["applications"][APP]["deployments"]
        return found

    def set(self, **settings: Any) -> None:
        """The target's `user_config`, while it runs."""
        self.target.reconfigure.remote(settings).result()

    def node_of(self, deployment: str) -> str:
        (replica,) = self.details()[deployment]["replicas"]
        return str(replica["node_id"])

    def is_running(self, deployment: str) -> bool:
        replicas = self.details().get(deployment, {}).get("replicas", [])
        return [replica["state"] for replica in replicas] == ["RUNNING"]

    def num_hosts(self) -> int:
        return sum(self.is_running(f"Drafter-{name}") for name in HOSTS)

    def wait_for_rounds(self, is_over: Callable[[], bool]) -> None:
        """Of whichever stream, from now on, and until a draft was accepted; or all is over."""
        self._num_rounds, self._has_accepted = 0, False
        enough = NUM_ROUNDS * NUM_STREAMS
        wait_for(lambda: is_over() or (self._has_accepted and self._num_rounds >= enough), 0.01)

    def stream(self, asked: GenerationRequest) -> Said:
        said, use, last_s = Said(), DrafterUse(), 0.0
        for emissions in self.target.options(stream=True).generate.remote([asked]):
            now_s = time.monotonic()
            self._num_rounds += 1
            said.longest_pause_s = max(said.longest_pause_s, now_s - (last_s or now_s))
            last_s = now_s
            for emission in emissions:
                said.ids += emission.token_ids
                use = next(iter(emission.use.per_drafter.values()), use)
            self._has_accepted |= use.num_accepted_tokens > 0
        said.num_accepted = use.num_accepted_tokens
        return said

    def generate(self, asked: Sequence[GenerationRequest]) -> list[Said]:
        with ThreadPoolExecutor(len(asked)) as threads:
            return list(threads.map(self.stream, asked))

    def uses(self, drafter: str) -> bool:
        return self.stream(request(f"{time.monotonic()}", 0, drafter)).num_accepted > 0


def wait_for(condition: Callable[[], object], pause_s: float = 0.2) -> float:
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < WAIT_S, "waited in vain"
        time.sleep(pause_s)
    return time.monotonic() - started_s


def pids_of(deployment: str) -> list[int]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            found += [process.pid] if f":{deployment}" in " ".join(process.cmdline()) else []
    return found


def kill(deployment: str) -> None:
    (pid,) = pids_of(deployment)
    os.kill(pid, signal.SIGKILL)


class Scenario:
    """What happens to `cluster` and its application, and what came of it in `found`."""

    def __init__(self, cluster: Any, target: str | None) -> None:
        self._cluster = cluster
        self._target = target
        self._nodes: dict[str, Any] = {}
        self.found: dict[str, Any] = {}

    def add_gpu_node(self) -> None:
        node = self._cluster.add_node(num_cpus=0, num_gpus=1)
        self._nodes[node.node_id] = node

    def run(self) -> None:
        """Two GPUs and three hosts, then three of both, which are killed."""
        from ray import serve
        from ray.serve.api import _run

        from deployments.app import build_app

        for _ in range(2):
            self.add_gpu_node()
        serve.start(proxy_location="Disabled")
        _run(build_app(config(self._target)), name=APP, route_prefix="/", _blocking=False)
        app = Application(serve)
        wait_for(lambda: app.is_running("Target") and app.num_hosts() == 2)
        (left_over,) = (name for name in HOSTS if not app.is_running(f"Drafter-{name}"))
        used, lost = (name for name in HOSTS if name != left_over)
        wait_for(lambda: app.details()[f"Drafter-{left_over}"]["message"])
        self.found["pending"] = app.details()[f"Drafter-{left_over}"]["message"]
        running = ["Target", f"Drafter-{used}", f"Drafter-{lost}"]
        self.found["nodes"] = {name: app.node_of(name) for name in running}
        selectors = {
            name: {"name": "fixed", "drafter": name, "draft_length": 4} for name in HOSTS
        }  # fmt: skip
        app.set(selectors=selectors)
        plain = [said.ids for said in app.generate(requests("plain", None))]
        wait_for(lambda: app.uses(used))
        self._compare(app, plain, "remote", used)
        if not is_quick():
            self.add_gpu_node()  # else a host that ends loses its place to the one that waits
            wait_for(lambda: app.num_hosts() == 3)
        self._compare(app, plain, "killed_process", used, lambda: kill(f"Drafter-{used}"))
        if is_quick():
            return
        self.found["process_recovery_s"] = wait_for(lambda: app.uses(used))
        self.found["nodes"][f"Drafter-{left_over}"] = app.node_of(f"Drafter-{left_over}")
        wait_for(lambda: app.uses(lost))
        node = self._nodes[app.node_of(f"Drafter-{lost}")]
        self._compare(app, plain, "killed_node", lost, lambda: self._kill(node))
        self.add_gpu_node()
        self.found["node_recovery_s"] = wait_for(lambda: app.uses(lost))
        before = pids_of("Router")
        self._compare(app, plain, "killed_router", used, lambda: kill("Router"))
        self.found["router_recovery_s"] = wait_for(  # after the streams, which nobody delayed
            lambda: app.is_running("Router") and pids_of("Router") not in ([], before)
        )

    def _kill(self, node: Any) -> None:
        self._cluster.remove_node(node, allow_graceful=False)

    def _compare(
        self,
        app: Application,
        plain: list[list[int]],
        name: str,
        drafter: str,
        disturb: Callable[[], object] = lambda: None,
    ) -> None:
        """Streams with the drafter, disturbed on their way, against plain ones."""
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(app.generate, requests(name, drafter))
            app.wait_for_rounds(answer.done)
            disturb()
            streams = answer.result()
        self.found[name] = [said.ids for said in streams] == plain
        num_accepted = sum(said.num_accepted for said in streams)
        pause_s = max(said.longest_pause_s for said in streams[1::2])
        self.found |= {f"{name}_accepted": num_accepted, f"{name}_others_pause_s": pause_s}
        self.found[f"{name}_drafted"] = num_accepted > 0
        self.found[f"{name}_others_go_on"] = pause_s <= DRAFT_TIMEOUT_S + MARGIN_S


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="hn-"))
    os.environ.update(
        ray_environment(folder),
        HEDGEROW_TRANSPORT_SECRET=secrets.token_hex(32),
        HEDGEROW_STATE=str(folder / "state"),
        RAY_SERVE_SLOW_STARTUP_WARNING_S="5",  # until Serve says what a replica waits for
    )
    os.environ.pop("REDIS_URL", None)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, True, {"num_cpus": 2, "include_dashboard": False})
    scenario = Scenario(cluster, sys.argv[1] if len(sys.argv) > 1 else None)
    try:
        scenario.run()
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(scenario.found))
    return 0 if all(value is not False for value in scenario.found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
