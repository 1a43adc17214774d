"""A cluster on this machine in the shape of the gpu overlay: a Ray node for each class of pods.

Nodes have the labels and resources of the manifests' groups, the GPUs pretended; the head keeps its
state in a Redis, and tenants have one of their own. What `serve deploy` gets is the overlay's Serve
config, with a small model on the CPU and drafters that need none on the hosts.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fault_servers import free_port
from benchmarks.login import own_tenants
from cluster.embedded_redis import find_server
from cluster.serve_config import merged, serve_config
from cluster.yaml_file import read_yaml, write_yaml
from deployments.descendants import Descendants
from deployments.drain import drain_command
from deployments.serve_status import DIRECT
from deployments.startup import ray_environment

APP = "hedgerow"
MODEL = "smollm2-135m-instruct"
DOMAINS = ("code", "math", "chat")
K8S = Path(__file__).parents[1] / "k8s"
START_S = 420.0
_STARTED = "Ray runtime started"
_SAID_LINES = 15


def groups() -> dict[str, dict[str, Any]]:
    """The worker groups of the gpu overlay, by name."""
    service: Any = read_yaml(K8S / "base" / "ray-service.yaml")
    found = {g["groupName"]: g for g in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    patches: Any = read_yaml(K8S / "components" / "gpu-hosts" / "groups.yaml")
    for patch in patches:
        if patch["path"].endswith("workerGroupSpecs/-"):
            found[patch["value"]["groupName"]] = patch["value"]
        elif patch["path"].endswith("/1/resources"):
            found["target"]["resources"] = patch["value"]
    return found


def document(port: int) -> dict[str, Any]:
    """The gpu overlay's Serve config for a machine without GPUs and with two cores."""
    target = {
        "model": MODEL,
        "device": "cpu",
        "dtype": "float32",
        "numerics": "invariant",
        "num_kv_tokens": 8192,
        "max_batch_tokens": 256,
        "num_threads": 1,
    }
    drafters = [{"name": name, "kind": "prompt_lookup", "model": None} for name in DOMAINS]
    hosts = [
        {"name": name, "device": "cpu", "num_threads": 1, "draft_timeout_s": 1.0}
        for name in DOMAINS
    ]
    scaling = {"max_replicas": 1, "downscale_delay_s": 0.0, "upscale_delay_s": 0.0}
    deployments = [{"name": "Target", "autoscaling_config": scaling}]
    args = {"target": target, "drafters": drafters, "hosts": hosts}
    changes = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [{"name": APP, "args": args, "deployments": deployments}],
    }
    found = merged(serve_config(K8S / "overlays" / "gpu" / "values.yaml"), changes)
    assert isinstance(found, dict)
    return found


def of_deployment(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    deployments = config["applications"][0]["deployments"]
    (found,) = (each for each in deployments if each["name"] == name)
    assert isinstance(found, dict)
    return found


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> float:
    """Seconds until it held; raises AssertionError after too many."""
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < timeout_s, f"waited in vain for {what}"
        time.sleep(0.25)
    return time.monotonic() - started_s


@contextmanager
def local_cluster() -> Iterator[LocalCluster]:
    """Ended in the end. Where its user breaks off it says what it can, and its folder stays."""
    folder = Path(tempfile.mkdtemp(prefix="ho-"))
    with own_tenants(folder / "tenants") as tenants:
        cluster = LocalCluster(folder, tenants)
        try:
            yield cluster
        except BaseException:
            print(cluster.said(), f"logs: {folder}", sep="\n", file=sys.stderr, flush=True)
            raise
        finally:
            cluster.close()
    shutil.rmtree(folder, ignore_errors=True)


class LocalCluster:
    """In `folder`, which should have a short path: Ray's sockets are in it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.metrics_ports: list[int] = []
        self._descendants = Descendants()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        self._head_port, self._dashboard_port, self._redis_port = (free_port() for _ in range(3))
        self._environment = {
            **ray_environment(folder),
            **environment,
            "HEDGEROW_TRANSPORT_SECRET": secrets.token_hex(32),
            "HEDGEROW_STATE": str(folder / "state"),
            "RAY_EXPORT_COUNTER_AS_GAUGE": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",  # as the operator sets it
        }
        self._environment.pop("REDIS_URL", None)
        self.head: subprocess.Popen[bytes] | None = None
        self._nodes: list[subprocess.Popen[bytes]] = []

    def start(self, num_targets: int = 1) -> None:
        """All nodes: the head, the front, targets and hosts."""
        data = self.folder / "redis"
        data.mkdir()
        redis = [str(find_server()), "--port", str(self._redis_port), "--bind", "127.0.0.1"]
        subprocess.Popen(
            [*redis, "--dir", str(data), "--appendonly", "yes"], stdout=subprocess.DEVNULL
        )
        self.start_head()
        found = groups()
        for name, group in found.items():
            for i in range(num_targets if name == "target" else 1):
                self._start_node(f"{name}-{i}", group)
        self.note()

    def start_head(self) -> None:
        """Also again, after it was killed: it finds in Redis what it knew."""
        arguments = ["--head", f"--port={self._head_port}", "--num-cpus=0", "--num-gpus=0"]
        arguments += [f"--dashboard-port={self._dashboard_port}", "--include-dashboard=true"]
        environment = {
            "RAY_REDIS_ADDRESS": f"127.0.0.1:{self._redis_port}",
            "RAY_external_storage_namespace": "proof",
        }
        self.head = self._start_until_up("head", arguments, environment)
        wait_for(lambda: self._get("/api/version") is not None, START_S, "the dashboard")

    def kill_head(self) -> None:
        """Its raylet, its GCS, its dashboard, and Serve's controller and proxy there."""
        assert self.head is not None
        own = psutil.Process(self.head.pid)
        for process in [own, *own.children(recursive=True)]:
            with suppress(psutil.Error):
                process.kill()
        self.head.wait()

    def drain(self, node_id: str, seconds: int) -> None:
        """As a pod's preStop hook does, which need not say which node."""
        where = ["--node-id", node_id, "--address", f"127.0.0.1:{self._head_port}"]
        _, *command = [*drain_command(str(seconds)), *where]
        ray = str(Path(sys.executable).with_name("ray"))
        subprocess.run([ray, *command], env=self._environment, check=True)

    def deploy(self, config: Mapping[str, Any]) -> None:
        """By Ray's own command, as an operator would."""
        path = self.folder / "serve.yaml"
        write_yaml(path, config)
        serve = str(Path(sys.executable).with_name("serve"))
        address = f"http://127.0.0.1:{self._dashboard_port}"
        done = subprocess.run(
            [serve, "deploy", "--address", address, str(path)],
            env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def status(self) -> dict[str, Any]:
        """Of the application, as Serve tells it; empty while nobody does."""
        details = self._get("/api/serve/applications/") or {}
        found: dict[str, Any] = details.get("applications", {}).get(APP, {})
        return found

    def is_running(self, num_targets: int = 1) -> bool:
        """All of it, and no target that starts or ends."""
        states = [replica["state"] for replica in self.replicas("Target")]
        is_whole = self.status().get("status") == "RUNNING"
        return is_whole and states == ["RUNNING"] * num_targets

    def replicas(self, deployment: str) -> list[dict[str, Any]]:
        """In any state."""
        deployments = self.status().get("deployments", {})
        found: list[dict[str, Any]] = deployments.get(deployment, {}).get("replicas", [])
        return found

    def pids(self) -> dict[str, list[int]]:
        """Of targets and hosts."""
        names = ["Target", *(f"Drafter-{name}" for name in DOMAINS)]
        return {name: sorted(r["pid"] for r in self.replicas(name)) for name in names}

    def said(self) -> str:
        """By Serve of the application, and last by its nodes and Serve's controller."""
        controllers = self.folder.glob("ray/session_2*/logs/serve/controller_[0-9]*.log")
        logs = [*self.folder.glob("*.log"), *controllers]
        found = self.status()
        parts = [f"{found.get('status')} {found.get('message')}"]
        for name, each in found.get("deployments", {}).items():
            parts.append(f"{name} is {each['status']} {each['message']}")
        for log in sorted(logs, key=lambda path: path.stat().st_mtime):
            lines = log.read_text(errors="replace").splitlines()[-_SAID_LINES:]
            parts.append("\n".join([f"== {log}", *lines]))
        return "\n".join(parts)

    def note(self) -> None:
        self._descendants.note()

    def close(self) -> None:
        self._descendants.end(10.0)

    def _start_node(self, name: str, group: Mapping[str, Any]) -> None:
        given = dict(group["resources"])
        given.pop("memory")
        cpus, gpus = given.pop("CPU"), given.pop("GPU", "0")
        own = json.dumps({key: float(value) for key, value in given.items()})
        labels = ",".join(f"{key}={value}" for key, value in group["labels"].items())
        arguments = [f"--address=127.0.0.1:{self._head_port}", f"--num-cpus={cpus}"]
        arguments += [f"--num-gpus={gpus}", f"--resources={own}", f"--labels={labels}"]
        self._nodes.append(self._start_until_up(name, arguments, {}))

    def _start_until_up(
        self, name: str, arguments: list[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Again, if it ends: a busy machine is too slow for Ray's patience."""
        log = self.folder / f"{name}.log"
        num_before = log.read_text().count(_STARTED) if log.exists() else 0
        process = self._ray_start(name, arguments, environment)

        def is_up() -> bool:
            nonlocal process
            if process.poll() is not None:
                process = self._ray_start(name, arguments, environment)
            return log.read_text().count(_STARTED) > num_before

        wait_for(is_up, START_S, name)
        return process

    def _ray_start(
        self, name: str, arguments: list[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        metrics_port = free_port()
        self.metrics_ports.append(metrics_port)
        common = ["--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        common += [f"--metrics-export-port={metrics_port}", "--object-store-memory=100000000"]
        common += ["--min-worker-port=0", "--max-worker-port=0"]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.ray_node", *arguments, *common],
                env={**self._environment, **environment},
                cwd=os.getcwd(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _get(self, path: str) -> Any:
        token = (self.folder / "token").read_text()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._dashboard_port}{path}",
            headers={"Authorization": f"Bearer {token}"},
        )
        with suppress(OSError, ValueError), DIRECT.open(request, timeout=5) as answer:
            return json.load(answer)
        return None
