"""What the running application learns is kept, shared and seen, and its loss hurts no request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from openai import OpenAI, OpenAIError
from redis import RedisError

from cluster.cli import main
from cluster.embedded_redis import EmbeddedRedis
from cluster.statistics.cells import SurvivalCell, cell_of
from cluster.statistics.client import connect
from cluster.statistics.keys import Table
from cluster.statistics.redis_store import RedisStore, pools
from cluster.statistics.store import Batch, Lifetimes, StoreError
from policies.features import Features

MODEL = "smollm2-135m-instruct"
PROMPT = "one two three one two three one two three one two"
TENANT = "development"


def drafted(client: OpenAI) -> dict[str, int]:
    """Draft tokens by drafter, for an answer that every drafter can draft."""
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=20, temperature=0)
    assert answer.usage is not None
    assert answer.usage.model_extra is not None
    uses = answer.usage.model_extra["speculation"]["per_drafter"]
    return {name: use["num_draft_tokens"] for name, use in uses.items()}


def favourite(client: OpenAI) -> str:
    uses = drafted(client)
    return max(uses, key=lambda name: uses[name], default="none")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline_s


@pytest.fixture
def store(app: Any, client: OpenAI) -> Iterator[RedisStore]:
    """That of the running application, emptied in the end."""
    assert drafted(client)
    with connect(EmbeddedRedis(app.state).url, 5.0) as redis:
        wait_for(lambda: bool(pools(redis)))
        ((_, pool),) = pools(redis)
        yield RedisStore(redis, pool)
    assert main(["stats", "--state", str(app.state), "reset"]) == 0


def num_drafts(store: RedisStore) -> int:
    """Of all drafters, in all contexts."""
    cells = [
        (cell_of(name), count)
        for state in store.read({}, 99).tables.values()
        for name, count in state.cells.items()
    ]
    return sum(
        count
        for cell, count in cells
        if isinstance(cell, SurvivalCell) and (cell.depth, cell.count) == (1, "at_risk")
    )


def teach_that_drafts_fail(store: RedisStore, drafter: str) -> None:
    """As another replica would, after a million drafts in every context."""
    table = Table(TENANT, Lifetimes().epoch(store.read({}, 0).now_us))
    cells = [SurvivalCell(drafter, c, 1, "at_risk") for c in range(Features().num_cells)]
    store.merge(Batch(table, "another", 0, 1, {cell.name: 10**6 for cell in cells}))


def kill(app: Any, name: str) -> None:
    os.kill(app.replica_pids()[name], signal.SIGKILL)


def is_answering(client: OpenAI) -> bool:
    try:
        return bool(drafted(client))
    except (OpenAIError, httpx.HTTPError):
        return False


def test_the_command_line_shows_what_the_application_learnt(
    app: Any, client: OpenAI, store: RedisStore, capsys: pytest.CaptureFixture[str]
) -> None:
    before = num_drafts(store)
    assert drafted(client)
    wait_for(lambda: num_drafts(store) > before)
    assert main(["stats", "--state", str(app.state)]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [TENANT, "lookup"] in rows
    assert [TENANT, "suffix"] in rows


def test_operators_see_who_chooses_and_from_what(app: Any, client: OpenAI) -> None:
    assert drafted(client)
    answer = httpx.get(f"{app.url}/v1/selector", headers=app.login, timeout=30)
    (target,) = answer.raise_for_status().json()["targets"]
    selectors = {each["name"]: each for each in target["selectors"]}
    assert {None, "eager", "far"} <= set(selectors)
    assert selectors[None]["settings"]["name"] == "survival"
    (table,) = [each for each in selectors[None]["tables"] if each["tenant"] == TENANT]
    assert sum(row["num_at_risk"][0] for row in table["rows"]) > 0
    assert sum(target["shares"].values()) == pytest.approx(1.0, abs=0.01)


def test_a_target_goes_by_what_others_learnt_also_after_it_was_killed(
    app: Any, client: OpenAI, store: RedisStore
) -> None:
    before = favourite(client)
    teach_that_drafts_fail(store, before)
    wait_for(lambda: favourite(client) != before)
    kill(app, "Target")
    wait_for(lambda: is_answering(client))
    wait_for(lambda: favourite(client) != before)


def redis_pid(app: Any) -> int | None:
    """Of the private server, None while there is none."""
    try:
        with connect(EmbeddedRedis(app.state).url, 5.0) as redis:
            return int(str(redis.info("server")["process_id"]))
    except (RedisError, OSError):
        return None


def assert_24_answers(client: OpenAI) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: drafted(client), range(24)))
    assert any(answers)


def counts_more_than(store: RedisStore, client: OpenAI, before: int) -> bool:
    drafted(client)
    try:
        return num_drafts(store) > before
    except StoreError:
        return False


def test_no_request_fails_while_redis_is_killed_and_none_of_the_counts_is_lost(
    app: Any, client: OpenAI, store: RedisStore
) -> None:
    pid, before = redis_pid(app), num_drafts(store)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert_24_answers(client)
    wait_for(lambda: redis_pid(app) not in (None, pid))
    wait_for(lambda: counts_more_than(store, client, before))
    assert app.metric("statistics_cells_lost_total") == 0


def test_no_request_fails_while_the_router_is_killed(
    app: Any, client: OpenAI, store: RedisStore
) -> None:
    before = num_drafts(store)
    kill(app, "Router")
    assert_24_answers(client)
    wait_for(lambda: counts_more_than(store, client, before))
