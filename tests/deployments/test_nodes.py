"""Hosts on nodes of their own: where they run, and that losing one costs no token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900.0


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "tests/support/nodes.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(answer)
    return answer


def test_the_target_and_each_host_have_nodes_of_their_own(found: dict[str, Any]) -> None:
    assert len(set(found["nodes"].values())) == len(found["nodes"]) == 4


def test_a_host_beyond_the_gpus_waits_and_says_so(found: dict[str, Any]) -> None:
    assert "GPU" in found["pending"]


def test_drafts_come_from_the_host_and_change_no_token(found: dict[str, Any]) -> None:
    assert found["remote"]
    assert found["accepted"] > 0


@pytest.mark.parametrize("what", ["process", "node"])
def test_killing_a_host_changes_no_token_and_it_comes_back(
    found: dict[str, Any], what: str
) -> None:
    assert found[f"killed_{what}"]
    assert found[f"{what}_recovery_s"] < 180
