"""A host in a process of its own, to be stopped and killed: serves a prompt lookup drafter.

Prints its endpoint; ends when its standard input does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hosting import host

from deployments.sockets import Endpoint
from engine.drafters.prompt_lookup import PromptLookupDrafter

ROOT = Path(__file__).parents[2]


@contextmanager
def host_process() -> Iterator[tuple[subprocess.Popen[str], Endpoint]]:
    path = f"{ROOT}:{Path(__file__).parent}"
    process = subprocess.Popen(
        [sys.executable, __file__],
        env={"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        address, key = process.stdout.readline().split()
        yield process, Endpoint(address, key.encode())
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    server = host([PromptLookupDrafter("lookup", 8, 6, 1)])
    print(server.endpoint.address, server.endpoint.public_key.decode(), flush=True)
    sys.stdin.read()
    server.close()
