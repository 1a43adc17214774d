"""The running application's only target is killed in the midst of answers, and nobody notices.

The same load, the same checks and more to be killed are in benchmarks/chaos.py.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from benchmarks.chaos_load import Load

MODEL = "smollm2-135m-instruct"
COUNT = 6  # streams, and as many that are not
MAX_TOKENS = 16
NUM_CHOICES = 2 * (COUNT + (COUNT + 2) // 4)  # the second of each four is for two
EMITTED = "generation_tokens_total"
TIMEOUT_S = 60.0


def kill_in_midst(app: Any, num_before: float) -> int:
    """Once a sixth of the answers' tokens are there."""
    pid: int = app.replica_pids()["Target"]
    deadline_s = time.monotonic() + TIMEOUT_S
    while app.metric(EMITTED) < num_before + NUM_CHOICES * MAX_TOKENS / 6:
        assert time.monotonic() < deadline_s
    os.kill(pid, signal.SIGKILL)
    return pid


def emitted_by_the_next(app: Any) -> float:
    """Tokens that the target emitted which Serve has started since."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (num := app.metric(EMITTED)):
        assert time.monotonic() < deadline_s
    return float(num)


def test_a_killed_target_loses_changes_and_cuts_no_answer(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDGEROW_API_KEY", app.key)
    load = Load(app.url, MODEL, MAX_TOKENS, COUNT, most_rounding=1e-3)
    load.learn()
    app.wait_until_idle()
    with ThreadPoolExecutor(1) as thread:
        killed = thread.submit(kill_in_midst, app, app.metric(EMITTED))
        outcomes = list(load.play())
        pid = killed.result()
    assert [is_stream for is_stream, _ in outcomes].count(True) == COUNT
    assert {outcome for _, outcome in outcomes} == {"exact"}
    assert app.replica_pids()["Target"] != pid
    assert 0 < emitted_by_the_next(app) < NUM_CHOICES * MAX_TOKENS
    assert httpx.get(f"{app.url}/health", timeout=30).status_code == 200
