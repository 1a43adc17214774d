"""`python -m benchmarks.head_loss`: a cluster without its head, and how it comes back.

A local cluster in the shape of the gpu overlay keeps Ray's state in Redis. Under steady streams the
head is killed: raylet, GCS, dashboard, and Serve's controller and proxy there. After a while it is
started again. Says what was answered meanwhile, and that the targets and hosts are the same
processes. The last line printed is one JSON object. QUICK=1: away for a shorter time.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from benchmarks.local_cluster import MODEL, LocalCluster, document, local_cluster, wait_for
from benchmarks.machine import describe_machine, is_quick
from benchmarks.steady_load import SteadyLoad, ask, until

NUM_STREAMS = 3
NUM_TOKENS = 16
START_S = 420.0
AWAY_S = 20.0 if is_quick() else 60.0


def prove(cluster: LocalCluster) -> dict[str, Any]:
    """What was found; whatever is False in it failed."""
    url = f"http://127.0.0.1:{cluster.port}"
    cluster.start()
    cluster.deploy(document(cluster.port))
    found: dict[str, Any] = {"running_s": wait_for(cluster.is_running, START_S, "RUNNING")}
    before = cluster.pids()
    with SteadyLoad(url, MODEL, NUM_STREAMS, NUM_TOKENS) as load:
        load.wait_for(NUM_STREAMS, START_S)
        killed_s = time.monotonic()
        cluster.kill_head()
        time.sleep(AWAY_S)
        back_s = time.monotonic()
        answers = [a for a in list(load.answers) if a.ended_s > killed_s]
        found["away_s"] = back_s - killed_s
        found["answered_by_10_s"] = [
            sum(not a.failure and at_s <= a.ended_s - killed_s < at_s + 10 for a in answers)
            for at_s in range(0, int(AWAY_S), 10)
        ]
        found["answered_while_away"] = sum(not a.failure for a in answers)
        found["failed_while_away"] = sum(bool(a.failure) for a in answers)
        found["failures"] = sorted({a.failure for a in answers if a.failure})[:3]
        cluster.start_head()
        found["head_back_s"] = time.monotonic() - back_s
        found["serve_back"] = until(cluster.is_running, START_S)
        found["serve_back_s"] = time.monotonic() - back_s
        cluster.note()
        num_before = len(load.answers)
        load.wait_for(2 * NUM_STREAMS, START_S)
        found["failed_after"] = sum(bool(a.failure) for a in load.answers[num_before:])
    found["served_while_away"] = found["answered_while_away"] > 0
    found["same_processes"] = cluster.pids() == before
    found["answers"] = not ask(url, MODEL, "Name a bird.", 8).failure
    return found


def main() -> int:
    print(describe_machine())
    with local_cluster() as cluster:
        found = prove(cluster)
    print(json.dumps(found))
    return 0 if all(value is not False for value in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
