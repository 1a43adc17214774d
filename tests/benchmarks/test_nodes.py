"""Hosts on nodes of their own: where they run, and that distance changes no token.

What losing a host, its node and the router costs is `make prove-nodes`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_target import write_tiny_target

from benchmarks.nodes import DRAFT_TIMEOUT_S, MARGIN_S

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 400.0


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    target = write_tiny_target(tmp_path_factory.mktemp("nodes") / "target")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.nodes", str(target)],
        cwd=ROOT,
        env={**os.environ, "QUICK": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, (done.stderr, done.stdout[-2000:])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_target_and_each_host_have_nodes_of_their_own(found: dict[str, Any]) -> None:
    assert len(set(found["nodes"].values())) == len(found["nodes"]) == 3


def test_a_host_beyond_the_gpus_waits_and_says_so(found: dict[str, Any]) -> None:
    assert '"GPU": 1' in found["pending"]


def test_drafts_come_from_the_host_and_change_no_token(found: dict[str, Any]) -> None:
    assert found["remote"]
    assert found["remote_drafted"]


def test_a_host_killed_under_16_streams_changes_no_token(found: dict[str, Any]) -> None:
    assert found["killed_process"]
    assert found["killed_process_drafted"]


def test_streams_without_that_host_pause_for_one_deadline_at_most(found: dict[str, Any]) -> None:
    assert found["killed_process_others_pause_s"] <= DRAFT_TIMEOUT_S + MARGIN_S
