"""`python -m deployments.serve`: serves ray_config.yaml on this machine until Ctrl-C.

Starts a Ray of its own on the loopback, with a token and a temporary folder of its own, through
Ray's `serve run`; whatever it started has ended when it ends. Never touches another Ray.
"""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.check import check_file
from cluster.yaml_file import read_yaml, write_yaml
from deployments.descendants import Descendants
from deployments.preflight import PreflightError, check_disk, check_port

DEFAULT_PORT = 8000
RAY_DISK_MB = 500
GRACE_S = 10.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FAILURES = ("ModelRefusedError: ", "Failed to update the deployments", "failed with exception")


class _Stop(Exception):
    """A signal asked for the end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked configuration, with the command line's host and port in it."""

    document: dict[str, Any]

    @property
    def host(self) -> str:
        host: str = self.document["http_options"]["host"]
        return host

    @property
    def port(self) -> int:
        port: int = self.document["http_options"]["port"]
        return port

    @property
    def model(self) -> str:
        args = self.document["applications"][0].get("args") or {}
        model: str = (args.get("target") or {}).get("model", "smollm2-135m-instruct")
        return model

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return f"http://{host}:{self.port}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.serve", description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, default=Path("ray_config.yaml"))
    parser.add_argument("--host", help="instead of the file's http_options.host")
    parser.add_argument("--port", type=int, help="instead of the file's http_options.port")
    options = parser.parse_args()
    for number in _SIGNALS:
        signal.signal(number, _stop)
    try:
        plan = _plan(options.config, options.host, options.port)
        check_port(plan.host, plan.port)
        return _prepare(plan.model) or _serve(plan)
    except PreflightError as error:
        print(error, file=sys.stderr)
        return 1
    except _Stop:
        return 130


def _stop(number: int, frame: object) -> None:
    raise _Stop


def _plan(config: Path, host: str | None, port: int | None) -> Plan:
    problems = check_file(config)
    if problems:
        raise PreflightError("\n".join(f"{config}: {problem}" for problem in problems))
    document: Any = read_yaml(config)
    http = document.get("http_options") or {}
    document["http_options"] = {
        **http,
        "host": host or http.get("host", "127.0.0.1"),
        "port": http.get("port", DEFAULT_PORT) if port is None else port,
    }
    return Plan(document)


def _prepare(model: str) -> int:
    """Fetches and converts; shows its progress, and says itself what went wrong. Exit status."""
    command = [sys.executable, "-m", "engine.prepare", model]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        return process.wait()
    finally:
        process.terminate()  # it removes what is half-made; killing it would not
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        process.kill()


def _serve(plan: Plan) -> int:
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    descendants = Descendants()
    is_failed = True
    try:
        check_disk(folder, RAY_DISK_MB)
        process = _start(plan, folder)
        _wait_until_healthy(plan, process, folder / "serve.log", descendants)
        _greet(plan, folder)
        while process.poll() is None:
            descendants.note()
            time.sleep(1.0)
        raise PreflightError(f"Ray ended by itself; see {folder}/serve.log")
    except _Stop:
        is_failed = False
        print("stopping", file=sys.stderr)
        return 0
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        descendants.end(GRACE_S)
        shutil.rmtree(folder / "ray" if is_failed else folder, ignore_errors=True)


def _start(plan: Plan, folder: Path) -> subprocess.Popen[bytes]:
    config = folder / "ray_config.yaml"
    write_yaml(config, plan.document)
    command = [str(Path(sys.executable).with_name("serve")), "run", str(config)]
    with (folder / "serve.log").open("wb") as log:
        return subprocess.Popen(
            command,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for this process alone
        )


def _environment(folder: Path) -> dict[str, str]:
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")])),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for listening on the loopback only
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_ID"):  # another Ray's
        environment.pop(name, None)
    return environment


def _wait_until_healthy(
    plan: Plan, process: subprocess.Popen[bytes], log: Path, descendants: Descendants
) -> None:
    print(f"starting; log: {log}", file=sys.stderr)
    while not _is_healthy(plan.url):
        descendants.note()
        text = log.read_text(errors="replace")
        if process.poll() is not None or any(word in text for word in _FAILURES):
            raise PreflightError(f"the application did not start: {_reason(text)}; see {log}")
        time.sleep(0.5)


def _reason(log: str) -> str:
    """The line that says most: a refused model, else the last that speaks of an error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    refused = [line for line in lines if "ModelRefusedError: " in line]
    if refused:
        return refused[-1].split("ModelRefusedError: ", 1)[1]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["Ray said nothing"])[-1]


def _is_healthy(url: str) -> bool:
    try:
        with _DIRECT.open(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def _greet(plan: Plan, folder: Path) -> None:
    body = (
        f'{{"model": "{plan.model}", "messages": '
        '[{"role": "user", "content": "What is a hedgerow?"}], "max_tokens": 64}'
    )
    print(f"\nserving {plan.model}; OpenAI base URL: {plan.url}/v1\n")
    print(f"curl {plan.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n")
    print(f"Ctrl-C ends it. Ray's own commands work with RAY_AUTH_TOKEN_PATH={folder}/token")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
