"""`python -m benchmarks.ray_node ARGUMENTS`: `ray start ARGUMENTS` on the loopback alone.

Ray's switch for listening there refuses a second node, which the command checks and nothing else.
"""

from __future__ import annotations

import sys

from ray._private import ray_constants
from ray.scripts.scripts import cli

if __name__ == "__main__":
    ray_constants.ENABLE_RAY_CLUSTER = True
    cli(["start", *sys.argv[1:]])
