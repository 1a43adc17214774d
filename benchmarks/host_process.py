"""A host in a process of its own, to be stopped and killed: serves a prompt lookup drafter.

Prints its endpoint; ends when its standard input does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    secret: str, identity: Identity
) -> Iterator[tuple[subprocess.Popen[str], Endpoint]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.host_process", identity.vocabulary, identity.weights],
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


def main() -> int:
    service = HostService([PromptLookupDrafter(NAME, LONGEST, 6, 1)], Identity(*sys.argv[1:]))
    server = HostServer(service, "127.0.0.1", TransportKeys(read_secrets()))
    print(server.endpoint.address, server.endpoint.public_key.decode(), flush=True)
    sys.stdin.read()
    server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
