"""`hedgerow stats`: show, reset, export and import what replicas have learnt."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from cluster.config import ClusterConfig, RedisSection
from cluster.embedded_redis import EmbeddedRedisError, redis_url, state_folder
from cluster.serve_config import ServeConfigError, serve_config
from cluster.statistics.client import UrlError, connect, masked
from cluster.statistics.document import DocumentError, export, import_part, parse
from cluster.statistics.keys import SCHEMA_VERSION, Pool
from cluster.statistics.redis_store import RedisStore, pools
from cluster.statistics.replica import Snapshot
from cluster.statistics.report import HEADER, aligned, learners, rows
from cluster.statistics.store import Lifetimes, Reading, StoreError

TIMEOUT_S = 5.0
MAX_TABLES = 1_000_000
MAX_DOCUMENT_BYTES = 2**30

_REFUSALS = (
    UrlError, EmbeddedRedisError, StoreError, DocumentError, ServeConfigError, OSError
)  # fmt: skip

Command = Callable[[Redis, argparse.Namespace], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--redis", metavar="URL", help="instead of REDIS_URL")
    parser.add_argument(
        "--state", type=Path, metavar="FOLDER", help="of the private server that is used else"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a Ray Serve config or values file, for redis.half_life_s when showing or importing",
    )
    parser.add_argument("--tenant", help="this tenant alone, when showing or resetting")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("show", help="a line per tenant, drafter and context (the default)")
    actions.add_parser("reset", help="forget what was learnt, while serving goes on")
    keep = actions.add_parser("export", help="write everything as JSON")
    keep.add_argument("file", type=Path, nargs="?", help="else to the standard output")
    load = actions.add_parser("import", help="add what was exported to what is there")
    load.add_argument("file", type=Path)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0: done, 1: it could not be done, for a reason on stderr."""
    environ = {**os.environ, **({"REDIS_URL": arguments.redis} if arguments.redis else {})}
    try:
        with redis_url(arguments.state or state_folder(environ), environ) as url:
            client = connect(url, TIMEOUT_S)
            try:
                _COMMANDS[arguments.action or "show"](client, arguments)
            except StoreError as error:
                raise StoreError(f"{masked(url)}: {error}") from error
            finally:
                client.close()
    except _REFUSALS as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _show(client: Redis, arguments: argparse.Namespace) -> None:
    half_life_s = _half_life_s(arguments.config)
    for pool, reading in _readings(client).items():
        print(f"model {pool.model}, drafters {pool.drafters}")
        tables = {table: state.cells for table, state in reading.tables.items()}
        snapshot = Snapshot(Lifetimes().epoch(reading.now_us), tables)
        lines: list[tuple[str, ...]] = [HEADER]
        for tenant in snapshot.tenants:
            if arguments.tenant in (None, tenant):
                counts = snapshot.counts(tenant, half_life_s)
                lines += [row.texts() for row in rows(tenant, counts)]
                for learner in learners(counts):
                    print(f"tenant {tenant or '-'}: sums of the learner {learner}")
        print("\n".join(aligned(lines)))
    for version, pool in pools(client):
        if version != SCHEMA_VERSION:
            print(f"passed over: schema version {version} of model {pool.model}", file=sys.stderr)


def _reset(client: Redis, arguments: argparse.Namespace) -> None:
    num_tables = 0
    for pool, reading in _readings(client).items():
        store = RedisStore(client, pool)
        for table, state in reading.tables.items():
            if arguments.tenant in (None, table.tenant):
                store.clear(table, state.writers)
                num_tables += bool(state.cells)
    print(f"{num_tables} tables reset")


def _export(client: Redis, arguments: argparse.Namespace) -> None:
    text = export(_readings(client))
    if arguments.file is None:
        sys.stdout.write(text)
    else:
        arguments.file.write_text(text, encoding="utf-8")


def _import(client: Redis, arguments: argparse.Namespace) -> None:
    if arguments.file.stat().st_size > MAX_DOCUMENT_BYTES:
        raise DocumentError(f"{arguments.file}: more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        document = parse(arguments.file.read_text(encoding="utf-8", errors="replace"))
    except DocumentError as error:
        raise DocumentError(f"{arguments.file}: {error}") from error
    half_life_s = _half_life_s(arguments.config)
    num_added = num_known = 0
    for part in document.pools:
        store = RedisStore(client, Pool(part.model, part.drafters))
        epoch = Lifetimes().epoch(store.read({}, 0).now_us)
        added, known = import_part(store, part, epoch, half_life_s)
        num_added, num_known = num_added + added, num_known + known
    print(f"{num_added} cells imported, {num_known} had been imported before")


def _half_life_s(config: Path | None) -> float:
    """That of the file, else the default. Raises ServeConfigError."""
    if config is None:
        return RedisSection().half_life_s
    (application,) = serve_config(config)["applications"]
    return ClusterConfig.model_validate(application.get("args", {})).redis.half_life_s


def _readings(client: Redis) -> dict[Pool, Reading]:
    found = [pool for version, pool in pools(client) if version == SCHEMA_VERSION]
    return {pool: RedisStore(client, pool).read({}, MAX_TABLES) for pool in found}


_COMMANDS: dict[str, Command] = {
    "show": _show,
    "reset": _reset,
    "export": _export,
    "import": _import,
}
