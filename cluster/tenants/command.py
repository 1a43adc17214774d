"""`hedgerow tenants`: tenants and their keys, and what they used."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from redis import Redis, RedisError

from cluster.embedded_redis import EmbeddedRedisError
from cluster.limits.limiter import LimiterError
from cluster.limits.redis_usage import RedisUsage
from cluster.limits.usage import Account, Usage
from cluster.statistics.client import UrlError, masked
from cluster.statistics.report import aligned
from cluster.tenants.address import VARIABLE, tenants_client
from cluster.tenants.api_key import new_key
from cluster.tenants.redis_store import RedisTenants
from cluster.tenants.store import TenantStore, TenantStoreError
from cluster.tenants.tenant import ROLES, Tenant

DEFAULT_GRACE_S = 24 * 3600.0
MAX_DAYS = 400
_LIMITS = {
    "requests_per_min": int,
    "tokens_per_min": int,
    "max_sequences": int,
    "kv_quota_tokens": int,
    "weight": float,
}
_NONE = "none"


class TenantsCommandError(Exception):
    """What was asked for cannot be done; the message says why."""


Command = Callable[[Redis, argparse.Namespace], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--redis", metavar="URL", help=f"instead of {VARIABLE}")
    parser.add_argument("--state", metavar="FOLDER", help="of the private server that is used else")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="make a tenant and print its key, this once")
    show = actions.add_parser("list", help="a line per tenant; never a key")
    show.add_argument("--json", action="store_true", help="for programs")
    limit = actions.add_parser("limit", help="change what a tenant may have")
    rotate = actions.add_parser("rotate", help="print a new key; the old ones end after a while")
    remove = actions.add_parser("remove", help="remove a tenant and its keys")
    used = actions.add_parser("usage", help="what tenants used, by day, as CSV or JSON")
    used.add_argument("--days", type=int, default=31, metavar="N", help="up to today (%(default)s)")
    used.add_argument("--tenant", metavar="NAME", help="this one alone")
    used.add_argument("--json", action="store_true", help="instead of CSV")
    for action in (add, limit, rotate, remove):
        action.add_argument("name")
    for action in (add, limit):
        action.add_argument("--role", choices=ROLES)
        for name, kind in _LIMITS.items():
            help_text = "share of a busy target" if name == "weight" else f"a number, or {_NONE}"
            option = f"--{name.replace('_', '-')}"
            action.add_argument(option, type=_number_or_none(kind), metavar="N", help=help_text)
    rotate.add_argument(
        "--grace-s", type=float, default=DEFAULT_GRACE_S, metavar="S",
        help="how long the old keys go on (%(default)g)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0: done, 1: it could not be done, for a reason on stderr."""
    environ = dict(os.environ)
    if arguments.redis:
        environ[VARIABLE] = arguments.redis
    if arguments.state:
        environ["HEDGEROW_STATE"] = arguments.state
    try:
        with tenants_client(environ) as (client, url):
            try:
                _COMMANDS[arguments.action](client, arguments)
            except (TenantStoreError, LimiterError) as error:
                raise TenantsCommandError(f"{masked(url)}: {error}") from error
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            print(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}", file=sys.stderr)
        return 1
    except (
        UrlError, EmbeddedRedisError, TenantsCommandError, RedisError, OSError,
    ) as error:  # fmt: skip
        print(error, file=sys.stderr)
        return 1
    return 0


def _add(client: Redis, arguments: argparse.Namespace) -> None:
    store = RedisTenants(lambda: client)
    tenant = Tenant(name=arguments.name, **_given(arguments))
    if not store.put(tenant, None):
        raise TenantsCommandError(f"{tenant.name!r} is there already; see `rotate` and `limit`")
    _give_key(store, tenant.name, None)


def _list(client: Redis, arguments: argparse.Namespace) -> None:
    tenants = RedisTenants(lambda: client).tenants().values()
    if arguments.json:
        print(json.dumps([tenant.model_dump() for tenant in tenants], indent=2))
        return
    fields = tuple(Tenant.model_fields)
    lines: list[tuple[str, ...]] = [fields]
    lines += [tuple(_shown(getattr(tenant, name)) for name in fields) for tenant in tenants]
    print("\n".join(aligned(lines)))


def _limit(client: Redis, arguments: argparse.Namespace) -> None:
    store = RedisTenants(lambda: client)
    before = _found(store, arguments.name)
    after = Tenant(**{**before.model_dump(), **_given(arguments)})
    if not store.put(after, before):
        raise TenantsCommandError(f"{before.name!r} was changed at the same time; try again")


def _rotate(client: Redis, arguments: argparse.Namespace) -> None:
    store = RedisTenants(lambda: client)
    if not 0 <= arguments.grace_s <= 1e9:
        raise TenantsCommandError(f"--grace-s {arguments.grace_s:g}: expected 0 to 1e9 seconds")
    _give_key(store, _found(store, arguments.name).name, arguments.grace_s)


def _remove(client: Redis, arguments: argparse.Namespace) -> None:
    if not RedisTenants(lambda: client).remove(arguments.name):
        raise _unknown(arguments.name)


def _usage(client: Redis, arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.days <= MAX_DAYS:
        raise TenantsCommandError(f"--days {arguments.days}: expected 1 to {MAX_DAYS}")
    today = datetime.now(UTC).date()
    days = [(today - timedelta(days=n)).isoformat() for n in range(arguments.days)]
    found = RedisUsage(lambda: client).read(days)
    rows = [
        {**asdict(account), **asdict(used)}
        for account, used in sorted(found.items(), key=lambda item: astuple(item[0]))
        if arguments.tenant in (None, account.tenant)
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    names = [field.name for kind in (Account, Usage) for field in fields(kind)]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _give_key(store: TenantStore, name: str, grace_s: float | None) -> None:
    """On the standard output and nowhere else: the store has a hash."""
    key = new_key()
    if not store.add_key(name, key.key_id, key.digest, grace_s):
        raise _unknown(name)
    print(key.text)


def _found(store: TenantStore, name: str) -> Tenant:
    tenant = store.tenants().get(name)
    if tenant is None:
        raise _unknown(name)
    return tenant


def _unknown(name: str) -> TenantsCommandError:
    return TenantsCommandError(f"{name!r} is no tenant; see `hedgerow tenants list`")


def _number_or_none(kind: type[int] | type[float]) -> Callable[[str], object]:
    def read(text: str) -> object:
        return _NONE if text == _NONE else kind(text)

    read.__name__ = "number"  # argparse names it when it refuses
    return read


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options that were given; None where they say none."""
    named: Mapping[str, Any] = vars(arguments)
    found = {name: named[name] for name in (*_LIMITS, "role") if named[name] is not None}
    return {name: None if value == _NONE else value for name, value in found.items()}


def _shown(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


_COMMANDS: dict[str, Command] = {
    "add": _add,
    "list": _list,
    "limit": _limit,
    "rotate": _rotate,
    "remove": _remove,
    "usage": _usage,
}
