"""From a plan to an application that answers, or to the reason why it does not."""

from __future__ import annotations

import http.client
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

from cluster.yaml_file import write_yaml
from deployments.descendants import Descendants
from deployments.plan import Plan
from deployments.preflight import PreflightError
from deployments.serve_status import DIRECT, ServeStatus, read_status

_REFUSED = "ModelRefusedError: "  # nothing gets better by Serve's trying again
_FAILURES = (_REFUSED, "Failed to update the deployments", "failed with exception")

SERVE_SETTINGS = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",  # a stream's item costs half of what an object does
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**28),  # as no object has a limit of 4 MiB
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",  # ten times a second takes 4 % of a core
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",  # as often as ours
}
"""Ray Serve's switches for less work beside the target; the Dockerfile has them too."""


def start(plan: Plan, folder: Path) -> subprocess.Popen[bytes]:
    """A keeper of `serve run` with a Ray of its own, in `folder`; see there how to end it."""
    config = folder / "ray_config.yaml"
    write_yaml(config, plan.document)
    serve = str(Path(sys.executable).with_name("serve"))
    keeper = [sys.executable, "-m", "deployments.keeper", str(folder)]
    with (folder / "serve.log").open("wb") as log:
        return subprocess.Popen(
            [*keeper, serve, "run", str(config)],
            env=ray_environment(folder),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for this process alone
        )


def ray_environment(folder: Path) -> dict[str, str]:
    """Of a Ray in `folder`, on the loopback and with a token of its own."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    environment = {
        **SERVE_SETTINGS,
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


def wait_until_healthy(
    plan: Plan,
    process: subprocess.Popen[bytes],
    folder: Path,
    descendants: Descendants,
    timeout_s: float,
) -> None:
    """Raises PreflightError, with the reason, as soon as it is clear that waiting is in vain."""
    log, deadline_s = folder / "serve.log", time.monotonic() + timeout_s
    token = (folder / "token").read_text()
    print(f"starting; log: {log}", file=sys.stderr)
    while not _is_healthy(plan.url):
        descendants.note()
        text = log.read_text(errors="replace")
        status = read_status(text, token)
        is_over = process.poll() is not None or any(word in text for word in _FAILURES)
        is_over = is_over or status.is_failed
        if is_over or time.monotonic() > deadline_s:
            late = "" if is_over else f" within {timeout_s:g} s (--start-timeout-s)"
            message = f"the application did not start{late}: {reason(text, status)}; see {log}"
            raise PreflightError(message)
        time.sleep(0.5)


def reason(log: str, status: ServeStatus) -> str:
    """What says most: a refused model, else the last error of the log, and Serve's own words."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    refused = [line for line in lines if _REFUSED in line]
    if refused:
        return refused[-1].split(_REFUSED, 1)[1]
    errors = [line for line in lines if "Error" in line]
    said = (errors or lines or ["Ray said nothing"])[-1]
    return said if status.is_unknown else f"{said}; Serve: {status.state} {status.message}".rstrip()


def _is_healthy(url: str) -> bool:
    try:
        with DIRECT.open(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False
