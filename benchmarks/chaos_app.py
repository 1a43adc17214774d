"""The application that is disturbed: its processes by what they are, and how many of them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fault_servers import free_port, wait_for
from benchmarks.login import own_tenants
from cluster.yaml_file import read_yaml, write_yaml
from deployments.serve_status import DASHBOARD, DIRECT

START_S = 300.0
HOST = "domains"
STALL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class App:
    port: int
    folder: Path
    document: dict[str, Any]
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pids(self, component: str) -> list[int]:
        """Of a deployment's running replicas, or of Serve's `controller`; none if nobody knows."""
        if component == "controller":
            return [each.pid for each in self._below() if _title(each) == "ray::ServeController"]
        with suppress(OSError, http.client.HTTPException, LookupError, ValueError):
            replicas = self._status()["deployments"][component]["replicas"]
            return [each["pid"] for each in replicas if each["state"] == "RUNNING"]
        return []

    def wait_for_replicas(self, component: str, count: int, timeout_s: float = START_S) -> None:
        """Until Serve says that so many run, and no more are starting or stopping."""
        if wait_for(lambda: self._is_settled(component, count), timeout_s) is None:
            raise SystemExit(f"{component} has not {count} replicas after {timeout_s:g} s")

    def scale(self, component: str, count: int) -> None:
        deployments = self.document["applications"][0]["deployments"]
        (found,) = (each for each in deployments if each["name"] == component)
        found["num_replicas"] = count
        self._rest("PUT", json.dumps(self.document).encode())

    def _is_settled(self, component: str, count: int) -> bool:
        if component == "controller":
            return len(self.pids(component)) == count
        with suppress(OSError, http.client.HTTPException, LookupError, ValueError):
            replicas = self._status()["deployments"][component]["replicas"]
            living = [psutil.pid_exists(each["pid"] or 0) for each in replicas]
            states = {each["state"] for each in replicas}
            return len(replicas) == count and all(living) and states == {"RUNNING"}
        return False

    def _below(self) -> list[psutil.Process]:
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def _status(self) -> Any:
        return json.loads(self._rest("GET"))["applications"]["hedgerow"]

    def _rest(self, method: str, body: bytes | None = None) -> bytes:
        """Of Ray's dashboard, which the command that started it names with its token."""
        said = (self.folder / "app.log").read_text()
        token = re.search(r"RAY_AUTH_TOKEN_PATH=(\S+)\n", said)
        assert token is not None, "the application names no token"
        log = (Path(token[1]).parent / "serve.log").read_text(errors="replace")
        address = DASHBOARD.search(log)
        assert address is not None, "Ray names no dashboard"
        request = urllib.request.Request(
            f"{address[1]}/api/serve/applications/",
            data=body,
            method=method,
            headers={
                "Authorization": f"Bearer {Path(token[1]).read_text().strip()}",
                "Content-Type": "application/json",
            },
        )
        with DIRECT.open(request, timeout=30) as answer:
            content: bytes = answer.read()
            return content


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).split(".")[0].split(" ")[0]
    return ""


def document(model: str, num_targets: int, num_ingresses: int) -> dict[str, Any]:
    """The repository's file, exact and impatient, with a lookup on its host.

    Its trained drafters are for the whole model, not for one of its first layers.
    """
    read: Any = read_yaml(Path("ray_config.yaml"))
    found: dict[str, Any] = read
    application = found["applications"][0]
    args = application["args"]
    args["target"] |= {"model": model, "numerics": "invariant", "num_kv_tokens": 8192}
    args["drafters"] = [
        *(drafter for drafter in args["drafters"] if "path" not in drafter),
        {"name": "far", "kind": "prompt_lookup", "host": HOST},
    ]
    for deployment in application["deployments"]:
        if deployment["name"] == "Target":
            deployment["num_replicas"] = num_targets
        if deployment["name"] == "Ingress":
            deployment["num_replicas"] = num_ingresses
            resume: dict[str, Any] = {"stall_timeout_s": STALL_TIMEOUT_S, "max_losses": 100}
            deployment["user_config"]["resume"] = resume
    return found


@contextmanager
def running_app(folder: Path, model: str, num_targets: int, num_ingresses: int) -> Iterator[App]:
    folder.mkdir(exist_ok=True)
    config, port = folder / "ray_config.yaml", free_port()
    made = document(model, num_targets, num_ingresses)
    write_yaml(config, made)
    command = [sys.executable, "-m", "deployments.serve", str(config), "--port", str(port)]
    log_file = folder / "app.log"
    with own_tenants(folder / "tenants") as tenants, log_file.open("wb") as log:
        environment = {**os.environ, **tenants, "HEDGEROW_STATE": str(folder / "state")}
        environment.pop("REDIS_URL", None)
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for(lambda: _is_over(process, log_file), START_S)
            if b"Ctrl-C ends it" not in log_file.read_bytes():
                raise SystemExit(log_file.read_text(errors="replace"))
            app = App(port, folder, made, process)
            app.wait_for_replicas("Target", num_targets)
            yield app
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60.0)


def _is_over(process: subprocess.Popen[bytes], log_file: Path) -> bool:
    """Whether it serves, or never will."""
    return process.poll() is not None or b"Ctrl-C ends it" in log_file.read_bytes()
