"""`python -m benchmarks.ray_node ARGUMENTS`: `ray start ARGUMENTS` on the loopback alone.

Ray's switch for listening there also makes the command refuse a second node; and a head that comes
back takes the nodes that wait for it on the same machine for another cluster at its address.
"""

from __future__ import annotations

import sys

from ray._private import ray_constants, services
from ray.scripts.scripts import cli

LOOPBACK = "127.0.0.1"

if __name__ == "__main__":
    ray_constants.ENABLE_RAY_CLUSTER = True
    services.get_node_ip_address = lambda *_: LOOPBACK
    services.find_bootstrap_address = lambda *_: None
    cli(["start", *sys.argv[1:]])
