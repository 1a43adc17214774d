"""`python -m deployments.serve`: serves ray_config.yaml on this machine until Ctrl-C.

Starts a Ray of its own on the loopback, with a token and a temporary folder of its own, through
Ray's `serve run`; whatever it started ends when it ends, even if it is killed. Never touches
another Ray.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from cluster.tenants.development import DevelopmentKeyError, development_key
from deployments.descendants import Descendants
from deployments.keeper import GRACE_S
from deployments.plan import Plan, read_plan
from deployments.preflight import PreflightError, check_disk, check_port
from deployments.startup import start, wait_until_healthy

RAY_DISK_MB = 500
START_TIMEOUT_S = 600.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stop(Exception):
    """A signal asked for the end."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.serve", description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, default=Path("ray_config.yaml"))
    parser.add_argument("--host", help="instead of the file's http_options.host")
    parser.add_argument("--port", type=int, help="instead of the file's http_options.port")
    parser.add_argument(
        "--start-timeout-s", type=float, default=START_TIMEOUT_S, metavar="S",
        help="how long loading may take (%(default)g)",
    )  # fmt: skip
    options = parser.parse_args()
    for number in _SIGNALS:
        signal.signal(number, _stop)
    try:
        plan = read_plan(options.config, options.host, options.port)
        check_port(plan.host, plan.port)
        return _prepare(plan.model) or _serve(plan, options.start_timeout_s)
    except (PreflightError, DevelopmentKeyError) as error:
        print(error, file=sys.stderr)
        return 1
    except _Stop:
        return 130


def _stop(number: int, frame: object) -> None:
    raise _Stop


def _ignore(number: int, frame: object) -> None:
    """Unlike SIG_IGN also for a signal that is on its way."""


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


def _serve(plan: Plan, start_timeout_s: float) -> int:
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    descendants = Descendants()
    process, is_failed = None, True
    try:
        check_disk(folder, RAY_DISK_MB)
        process = start(plan, folder)
        wait_until_healthy(plan, process, folder, descendants, start_timeout_s)
        _greet(plan, folder, development_key())
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
            signal.signal(number, _ignore)
        if process is not None:
            _end(process)
        descendants.end(GRACE_S)  # of a keeper that was killed
        shutil.rmtree(folder / "ray" if is_failed else folder, ignore_errors=True)


def _end(keeper: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired, BrokenPipeError):  # which is one that has ended
        keeper.communicate(b".", 3 * GRACE_S)


def _greet(plan: Plan, folder: Path, key: str | None) -> None:
    """Without a key the tenants are not ours to add to."""
    body = (
        f'{{"model": "{plan.model}", "messages": '
        '[{"role": "user", "content": "What is a hedgerow?"}], "max_tokens": 64}'
    )
    print(f"\nserving {plan.model}; OpenAI base URL: {plan.url}/v1\n")
    if key is None:
        print("API keys: `hedgerow tenants add NAME` prints one")
    else:
        print(f"API key, for this machine's development: {key}\n")
    login = f"-H 'Authorization: Bearer {key or 'hr-...'}' -H 'Content-Type: application/json'"
    print(f"curl {plan.url}/v1/chat/completions {login} -d '{body}'\n")
    print(f"Ctrl-C ends it. Ray's own commands work with RAY_AUTH_TOKEN_PATH={folder}/token")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
