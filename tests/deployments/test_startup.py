"""The command behind `make serve` on a fake `serve`: how it notices failure, and what it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deployments.plan import Plan
from deployments.serve_status import ServeStatus, read_status
from deployments.startup import reason

ROOT = Path(__file__).parents[2]
FAKE_SERVE = """
import http.server, json, os, subprocess, sys, threading, time

class Dashboard(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.headers["Authorization"] == "Bearer " + token
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["FAKE_STATUS"].encode())
    def log_message(self, *arguments):
        pass

token = open(os.environ["RAY_AUTH_TOKEN_PATH"]).read()
server = http.server.HTTPServer(("127.0.0.1", 0), Dashboard)
threading.Thread(target=server.serve_forever, daemon=True).start()
sleep = [sys.executable, "-c", "import time; time.sleep(99)"]
child = subprocess.Popen(sleep, start_new_session=True)
with open(os.environ["FAKE_PIDS"], "w") as file:
    print(os.getpid(), child.pid, file=file)
print(f"View the dashboard at \\x1b[1mhttp://127.0.0.1:{server.server_port} \\x1b[22m", flush=True)
print("worker: RuntimeError: no memory left", flush=True)
time.sleep(99)
"""


def status(state: str, message: str = "") -> str:
    target = {"status": "UPDATING", "message": "has 1 replica to start.\n\nTraceback\nKeyError: 1"}
    deployments = {"Target": target, "Ingress": {"status": "HEALTHY", "message": "fine"}}
    application = {"status": state, "message": message, "deployments": deployments}
    return json.dumps({"applications": {"hedgerow": application}})


Runner = Callable[[str, float], "subprocess.Popen[str]"]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """Starts the command with the fake beside its python, and gives Serve that status."""
    for name, code in (("python", ""), ("serve", FAKE_SERVE)):
        script = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
        (tmp_path / name).write_text(f"#!{sys.executable}\n{code}" if code else script)
        (tmp_path / name).chmod(0o700)
    (tmp_path / "tmp").mkdir()
    program = textwrap.dedent(
        f"""
        import sys
        from deployments import serve
        sys.executable = {str(tmp_path / "python")!r}
        serve._prepare = lambda model: 0
        sys.exit(serve.main())
        """
    )
    started = []

    def start(said: str, timeout_s: float) -> subprocess.Popen[str]:
        environment = {**os.environ, "FAKE_STATUS": said, "FAKE_PIDS": str(tmp_path / "pids")}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", program, "--port=18323", f"--start-timeout-s={timeout_s}"],
                cwd=ROOT,
                env={**environment, "TMPDIR": str(tmp_path / "tmp")},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def pids_of_the_fake(tmp_path: Path) -> list[int]:
    deadline_s = time.monotonic() + 30
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text().endswith("\n"):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return [int(pid) for pid in (tmp_path / "pids").read_text().split()]


def assert_gone(pids: list[int], timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < deadline_s, "a process is left"
        time.sleep(0.05)


def test_a_start_that_takes_too_long_says_so_and_leaves_no_process(
    runner: Runner, tmp_path: Path
) -> None:
    process = runner(status("DEPLOYING"), 4.0)
    pids = pids_of_the_fake(tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "did not start within 4 s (--start-timeout-s): worker: RuntimeError: no memory" in errors
    assert "Serve: DEPLOYING Target is UPDATING has 1 replica to start. KeyError: 1" in errors
    assert_gone(pids, 5.0)


@pytest.mark.parametrize("state", ["DEPLOY_FAILED", "UNHEALTHY"])
def test_what_serve_calls_failed_is_not_waited_for(
    runner: Runner, tmp_path: Path, state: str
) -> None:
    process = runner(status(state, "The target is ill."), 600.0)
    pids = pids_of_the_fake(tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "did not start: worker: RuntimeError: no memory left" in errors
    assert f"Serve: {state} The target is ill.; Target is UPDATING" in errors
    assert_gone(pids, 5.0)


def test_what_a_killed_runner_started_ends_and_its_folder_goes(
    runner: Runner, tmp_path: Path
) -> None:
    process = runner(status("DEPLOYING"), 600.0)
    pids = pids_of_the_fake(tmp_path)
    assert all(psutil.pid_exists(pid) for pid in pids)
    process.kill()
    assert_gone(pids)
    deadline_s = time.monotonic() + 10
    while list((tmp_path / "tmp").iterdir()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_signal_ends_everything_and_leaves_no_folder(runner: Runner, tmp_path: Path) -> None:
    process = runner(status("DEPLOYING"), 600.0)
    pids = pids_of_the_fake(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_gone(pids, 5.0)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("log", ["", "View the dashboard at http://127.0.0.1:1 "])
def test_the_status_of_a_ray_that_does_not_answer_is_unknown(log: str) -> None:
    assert read_status(log, "token") == ServeStatus()


def test_a_refused_model_is_the_whole_reason() -> None:
    log = "a: ValueError: x\nworker: engine.errors.ModelRefusedError: m: too large\nError: late"
    assert reason(log, ServeStatus("DEPLOYING")) == "m: too large"
    assert reason("", ServeStatus()) == "Ray said nothing"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_the_url_is_one_that_this_machine_can_open(host: str, url: str) -> None:
    assert Plan({"http_options": {"host": host, "port": 8000}}).url == url
