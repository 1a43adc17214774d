"""Hosts in processes of their own, to be stopped and killed; run as a program, one for lookups.

Such a process prints its endpoint, and ends when its standard input does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from deployments.host_server import HostServer
from deployments.host_service import HostService
from deployments.messages import Identity
from deployments.sockets import Endpoint
from deployments.transport_keys import TransportKeys
from deployments.transport_secret import VARIABLE, read_secrets
from engine.drafters.prompt_lookup import PromptLookupDrafter

ROOT = Path(__file__).parents[1]
NAME = "lookup"
LONGEST = 8


@contextmanager
def host_process(
    secret: str, module: str, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], Endpoint]]:
    """Of a `module` that calls `serve_host`."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, VARIABLE: secret},
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


def lookup_host(
    secret: str, identity: Identity
) -> AbstractContextManager[tuple[subprocess.Popen[str], Endpoint]]:
    """Serves a prompt lookup drafter."""
    return host_process(secret, "benchmarks.host_process", identity.vocabulary, identity.weights)


def serve_host(service: HostService) -> None:
    """In the process."""
    server = HostServer(service, "127.0.0.1", TransportKeys(read_secrets()))
    print(server.endpoint.address, server.endpoint.public_key.decode(), flush=True)
    sys.stdin.read()
    server.close()


if __name__ == "__main__":
    serve_host(HostService([PromptLookupDrafter(NAME, LONGEST, 6, 1)], Identity(*sys.argv[1:])))
