"""One running application per session, started by the command that users run.

With two processes one has all tests of applications, and the other files go to whoever is free.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from openai import OpenAI
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: the processes share the cores
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton, which torch may have brought
ROOT = Path(__file__).parents[1]
APPLICATION_FILES = (
    "test_hosts.py",
    "test_kill.py",
    "test_nodes.py",
    "test_openai_chat.py",
    "test_openai_chat_options.py",
    "test_openai_completions.py",
    "test_openai_errors.py",
    "test_openai_load.py",
    "test_secrecy.py",
    "test_what_is_learnt.py",
)
START_S = 300.0
STOP_S = 60.0


if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it: there is a core for each


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each file to whoever is free, and the files of applications to one."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "applications" if Path(path).name in APPLICATION_FILES else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduler:
    return Scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "app" in getattr(item, "fixturenames", ()):
            assert item.path.name in APPLICATION_FILES, f"add {item.path.name} to them"
    items.sort(key=lambda item: item.path.name not in APPLICATION_FILES)


@dataclass(frozen=True, slots=True)
class App:
    """`folder` is Ray's temporary folder, with the token and the log; `state` the statistics'."""

    url: str
    folder: Path
    config: Path
    state: Path
    process: subprocess.Popen[bytes]

    @property
    def key(self) -> str:
        """The development tenant's."""
        return (self.state / "development-key").read_text()

    @property
    def login(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def metric(self, name: str) -> float:
        """Sum over labels of one of our metrics."""
        answer = httpx.get(f"{self.url}/metrics", headers=self.login, timeout=30)
        lines = answer.raise_for_status().text.splitlines()
        found = [line for line in lines if re.match(rf"hedgerow:{name}[ {{]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def replica_pids(self) -> dict[str, int]:
        """Serve's replicas below the running command, by deployment."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        names = {}
        for process in below:
            with suppress(psutil.Error):  # it has just ended
                title = re.search(r"ServeReplica:\w+:(\w+)", " ".join(process.cmdline()))
                if title is not None:
                    names[title[1]] = process.pid
        return names

    def wait_until_idle(self, timeout_s: float = 10.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while self.metric("num_requests_running") or self.metric("num_requests_waiting"):
            assert time.monotonic() < deadline_s, "the target still works"


def _test_config() -> dict[str, Any]:
    """The repository's own file, exact, with a lookup on its host and with selectors to name."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "ray_config.yaml").read_text())
    application = document["applications"][0]
    args = application["args"]
    args["target"]["numerics"] = "invariant"
    (host,) = args["hosts"]
    host["draft_timeout_s"] = 5.0
    args["drafters"].append({"name": "far", "kind": "prompt_lookup", "host": host["name"]})
    (target,) = [d for d in application["deployments"] if d["name"] == "Target"]
    target["user_config"]["speculation"] = "on"
    eager = {"name": "fixed", "drafter": "lookup", "draft_length": 8}
    target["user_config"]["selectors"]["eager"] = eager
    target["user_config"]["selectors"]["far"] = {**eager, "drafter": "far"}
    return document


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _start(config: Path, output: Path) -> App:
    """Runs the command; raises with what it printed if it does not come up."""
    port, state = _free_port(), output.with_name("state")
    environment = {**os.environ, "HEDGEROW_STATE": str(state)}
    for name in ("REDIS_URL", "HEDGEROW_TENANTS_REDIS_URL"):
        environment.pop(name, None)
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.serve", str(config), "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    deadline_s, token = time.monotonic() + START_S, None
    while token is None and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.2)
        token = re.search(r"RAY_AUTH_TOKEN_PATH=(\S+)\n", output.read_text())
    if token is None:
        _stop(process)
        raise AssertionError(f"the application did not start:\n{output.read_text()}")
    return App(f"http://127.0.0.1:{port}", Path(token[1]).parent, config, state, process)


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(STOP_S)


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app")
    config = folder / "ray_config.yaml"
    config.write_text(yaml.safe_dump(_test_config()))
    running = _start(config, folder / "output")
    try:
        yield running
    finally:
        assert _stop(running.process) == 0
        assert not running.folder.exists()


@pytest.fixture(scope="session")
def app_url(app: App) -> str:
    return app.url


@pytest.fixture(scope="session")
def client(app: App) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{app.url}/v1", api_key=app.key, max_retries=0, timeout=120) as client:
        yield client
