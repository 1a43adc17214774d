"""`hedgerow stats`: what is shown, reset, exported and imported, on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from statistics_backends import RedisBackend, server

from cluster.cli import main
from cluster.statistics.cells import SurvivalCell
from cluster.statistics.keys import Pool, Table
from cluster.statistics.redis_store import RedisStore
from cluster.statistics.store import Batch, Lifetimes, Status
from cluster.yaml_file import read_yaml, write_yaml

POOL = Pool("model-a", "drafters-b")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisBackend, str]]:
    with server("wheel", tmp_path_factory.mktemp("stats")) as embedded:
        backend = RedisBackend(embedded.url)
        yield backend, embedded.url
        backend.close()


@pytest.fixture
def url(running: tuple[RedisBackend, str], monkeypatch: pytest.MonkeyPatch) -> str:
    backend, url = running
    backend.flush()
    monkeypatch.setenv("REDIS_URL", url)
    return url


@pytest.fixture
def store(running: tuple[RedisBackend, str], url: str) -> RedisStore:
    """Two tenants: of 8 drafts of one, 6 had their first token accepted and 3 the second."""
    store = RedisStore(running[0].client, POOL)
    for tenant, factor in (("acme", 1), ("zenith", 10)):
        totals = {
            SurvivalCell("lookup", 7, 1, "at_risk").name: 8 * factor,
            SurvivalCell("lookup", 7, 1, "passed").name: 6 * factor,
            SurvivalCell("lookup", 7, 2, "at_risk").name: 6 * factor,
            SurvivalCell("lookup", 7, 2, "passed").name: 3 * factor,
        }
        store.merge(Batch(now(store, tenant), "w", 0, 1, totals))
    return store


def now(store: RedisStore, tenant: str) -> Table:
    return Table(tenant, Lifetimes().epoch(store.read({}, 0).now_us))


def cells(store: RedisStore) -> dict[str, int]:
    """The sum of each tenant's cells."""
    tables = store.read({}, 99).tables
    return {table.tenant: sum(state.cells.values()) for table, state in tables.items()}


def test_a_line_per_tenant_drafter_and_context(
    store: RedisStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "model model-a, drafters drafters-b",
        "tenant  drafter  context  drafts  first  accepted",
        "acme    lookup         7     8.0  0.750      1.12",
        "zenith  lookup         7    80.0  0.750      1.12",
    ]
    assert main(["stats", "--tenant", "acme", "show"]) == 0
    assert "zenith" not in capsys.readouterr().out


def test_reset_forgets_one_tenant_or_all(
    store: RedisStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", "--tenant", "acme", "reset"]) == 0
    assert cells(store) == {"acme": 0, "zenith": 230}
    late = Batch(now(store, "acme"), "w", 1, 2, {"s:lookup:7:1:r": 9})
    assert store.merge(late).status is Status.FOLDED
    assert main(["stats", "reset"]) == 0
    assert cells(store) == {"acme": 0, "zenith": 0}
    assert capsys.readouterr().out.splitlines() == ["1 tables reset", "1 tables reset"]


def test_what_is_exported_can_be_imported_once(
    store: RedisStore,
    running: tuple[RedisBackend, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "statistics.json"
    assert main(["stats", "export", str(file)]) == 0
    document = json.loads(file.read_text())
    assert (document["format"], document["version"]) == ("hedgerow-statistics", 1)
    running[0].flush()
    for _ in range(2):
        assert main(["stats", "import", str(file)]) == 0
    assert cells(store) == {"acme": 23, "zenith": 230}
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "8 cells imported, 0 had been imported before",
        "0 cells imported, 8 had been imported before",
    ]
    assert main(["stats", "export"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["pools"][0]["tables"] == document["pools"][0]["tables"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "the document: Invalid JSON"),
        ('{"format": "other", "version": 1, "pools": []}', "format: Input should be"),
        ('{"format": "hedgerow-statistics", "version": 2, "pools": []}', "version: Input should"),
        (
            '{"format": "hedgerow-statistics", "version": 1, "pools": [{"model": "m:", '
            '"drafters": "d", "now_s": 1, "tables": []}]}',
            "pools.0.model: String should match",
        ),
    ],
)
def test_a_document_that_cannot_be_read_is_named(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    file = tmp_path / "statistics.json"
    file.write_text(text)
    assert main(["stats", "import", str(file)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"{file}: {expected}")
    assert error.count("\n") == 1


def test_counts_are_worth_what_the_config_says(
    store: RedisStore,
    running: tuple[RedisBackend, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Four drafts more of an epoch ago: with a half-life of one epoch, worth two."""
    lifetimes, present = Lifetimes(), now(store, "acme")
    before = Table("acme", present.epoch - lifetimes.epoch_s)
    cell = SurvivalCell("lookup", 7, 1, "at_risk").name
    store.merge(Batch(before, "w", 0, 1, {cell: 4}))
    document: Any = read_yaml(Path("ray_config.yaml"))
    document["applications"][0]["args"]["redis"] = {"half_life_s": float(lifetimes.epoch_s)}
    config, file = tmp_path / "config.yaml", tmp_path / "statistics.json"
    write_yaml(config, document)
    assert main(["stats", "--config", str(config), "--tenant", "acme"]) == 0
    assert "acme    lookup         7    10.0" in capsys.readouterr().out
    assert main(["stats", "--tenant", "acme"]) == 0
    assert "acme    lookup         7    11.8" in capsys.readouterr().out
    assert main(["stats", "export", str(file)]) == 0
    running[0].flush()
    assert main(["stats", "--config", str(config), "import", str(file)]) == 0
    assert main(["stats", "--config", str(config), "--tenant", "acme"]) == 0
    assert "acme    lookup         7    10.0" in capsys.readouterr().out


def test_a_config_that_cannot_be_used_is_named(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("applications: []")
    assert main(["stats", "--config", str(file)]) == 1
    assert str(file) in capsys.readouterr().err


def test_a_server_that_is_away_is_named_without_its_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["stats", "--redis", "redis://a:secret@127.0.0.1:1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("redis://a:***@127.0.0.1:1: ConnectionError")
    assert "secret" not in error


def test_without_a_url_the_private_server_s_data_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    file = tmp_path / "statistics.json"
    part = {"tenant": "t", "epoch": 0, "kind": "live", "cells": {"s:lookup:7:1:r": 5}}
    pool = {"model": "m", "drafters": "d", "now_s": 1, "tables": [part]}
    file.write_text(json.dumps({"format": "hedgerow-statistics", "version": 1, "pools": [pool]}))
    folder = str(tmp_path / "state")
    assert main(["stats", "--state", folder, "import", str(file)]) == 0
    capsys.readouterr()
    assert main(["stats", "--state", folder]) == 0
    assert "lookup         7     5.0  0.000      0.00" in capsys.readouterr().out
