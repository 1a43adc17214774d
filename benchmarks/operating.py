"""`python -m benchmarks.operating`: what an operator does to a cluster under load, and who notices.

A local cluster in the shape of the gpu overlay gets the overlay's Serve config by `serve deploy`.
Then, under steady streams: another selector, speculation off and on again, a target more and one
less, and the node of the last one drained, as a pod's preStop hook does it. Fails if a request
fails, an answer differs, a setting does not take effect, a target's or host's process is another
one after a setting, or the drained node keeps its target. The last line printed is one JSON object.
QUICK=1: no scaling, no drain.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.local_cluster import (
    MODEL,
    LocalCluster,
    document,
    local_cluster,
    of_deployment,
    wait_for,
)
from benchmarks.machine import describe_machine, is_quick
from benchmarks.steady_load import SteadyLoad, ask, until

NUM_STREAMS = 3
NUM_TOKENS = 16
START_S = 420.0
SETTLE_S = 300.0
DRAIN_S = 90  # as in k8s/base/ray-service.yaml
EAGER = {"name": "fixed", "drafter": "lookup", "draft_length": 8}


class Proof:
    """`found` is what is printed in the end; whatever is False in it failed."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._url = f"http://127.0.0.1:{cluster.port}"
        self._config = document(cluster.port)
        self.found: dict[str, Any] = {}

    def run(self) -> None:
        self._cluster.start(num_targets=1 if is_quick() else 2)
        self._cluster.deploy(self._config)
        self.found["running_s"] = wait_for(self._cluster.is_running, START_S, "RUNNING")
        self._cluster.note()
        first = ask(self._url, MODEL, "Name a bird.", 8)
        self.found["answers"] = not first.failure
        before = self._cluster.pids()
        self.found["pids"] = before
        with SteadyLoad(self._url, MODEL, NUM_STREAMS, NUM_TOKENS) as load:
            load.wait_for(NUM_STREAMS, SETTLE_S)
            self._set(load, "selector", {"selector": EAGER}, drafts=True)
            self._set(load, "kill_switch", {"speculation": "off"}, drafts=False)
            self._set(load, "back", {"speculation": "on", "selector": EAGER}, drafts=True)
            self.found["same_processes"] = self._cluster.pids() == before
            if not is_quick():
                self._scale(load)
                self._drain(load)
        self._judge(load)

    def _set(self, load: SteadyLoad, name: str, settings: Mapping[str, Any], drafts: bool) -> None:
        """Changes the target's `user_config`; says how long until answers show it."""
        config = copy.deepcopy(self._config)
        of_deployment(config, "Target")["user_config"].update(settings)
        started_s = time.monotonic()
        self._cluster.deploy(config)

        def shows() -> bool:
            """All of the last few requests that began after the change."""
            recent = load.since(started_s)[-NUM_STREAMS:]
            return len(recent) == NUM_STREAMS and all(
                (answer.num_draft_tokens > 0) == drafts for answer in recent
            )

        self.found[f"{name}_took_effect"] = until(shows, SETTLE_S)
        self.found[f"{name}_s"] = time.monotonic() - started_s
        self._config = config

    def _scale(self, load: SteadyLoad) -> None:
        for num_targets in (2, 1):
            config = copy.deepcopy(self._config)
            scaling = of_deployment(config, "Target")["autoscaling_config"]
            scaling |= {"min_replicas": num_targets, "max_replicas": num_targets}
            started_s = time.monotonic()
            self._cluster.deploy(config)
            is_there = partial(self._cluster.is_running, num_targets)
            wait_for(is_there, START_S, f"{num_targets} targets")
            self._cluster.note()
            self.found[f"scaled_to_{num_targets}_s"] = time.monotonic() - started_s
            load.wait_for(2 * NUM_STREAMS, START_S)

    def _drain(self, load: SteadyLoad) -> None:
        """The only target's node, while another one is empty."""
        (before,) = self._cluster.replicas("Target")
        started_s = time.monotonic()
        self._cluster.drain(before["node_id"], DRAIN_S)

        def is_elsewhere() -> bool:
            nodes = {replica.get("node_id") for replica in self._cluster.replicas("Target")}
            return self._cluster.is_running() and before["node_id"] not in nodes

        wait_for(is_elsewhere, START_S, "a target elsewhere")
        self.found["drained_s"] = time.monotonic() - started_s
        self._cluster.note()
        load.wait_for(2 * NUM_STREAMS, START_S)

    def _judge(self, load: SteadyLoad) -> None:
        self.found["num_requests"] = len(load.answers)
        self.found["num_failed"] = len(load.failures)
        self.found["failures"] = load.failures[:3]
        self.found["none_failed"] = not load.failures
        distinct = {answer.text for answer in load.answers if not answer.failure}
        self.found["same_answers"] = len(distinct) <= 3  # there are three prompts


def main() -> int:
    print(describe_machine())
    with local_cluster() as cluster:
        proof = Proof(cluster)
        proof.run()
    print(json.dumps(proof.found))
    return 0 if all(value is not False for value in proof.found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
