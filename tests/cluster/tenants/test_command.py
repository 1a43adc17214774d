"""`hedgerow tenants` on a real server: what it prints, stores and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis
from statistics_backends import server

from cluster.cli import main
from cluster.limits.redis_usage import RedisUsage
from cluster.limits.usage import Account, Entry, Usage
from cluster.statistics.client import connect
from cluster.tenants.api_key import parse_key
from cluster.tenants.development import DevelopmentKeyError, development_key
from cluster.tenants.redis_store import RedisTenants
from cluster.tenants.tenant import Tenant

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Redis, str]]:
    with (
        server("wheel", tmp_path_factory.mktemp("tenants")) as embedded,
        connect(embedded.url, 5.0) as client,
    ):
        yield client, embedded.url


@pytest.fixture
def store(running: tuple[Redis, str], monkeypatch: pytest.MonkeyPatch) -> RedisTenants:
    client, url = running
    client.flushall()
    monkeypatch.setenv("HEDGEROW_TENANTS_REDIS_URL", url)
    return RedisTenants(lambda: client)


def tenants(*words: str) -> int:
    return main(["tenants", *words])


def printed_key(capsys: Capture) -> str:
    text = capsys.readouterr().out.strip()
    assert parse_key(text) is not None
    return text


def everything_in(client: Redis) -> str:
    """As readers get it: what DUMP gives may be compressed."""
    read = {"hash": client.hgetall, "set": client.smembers, "string": client.get}
    return repr({name: read[str(client.type(name))](name) for name in client.scan_iter()})


def owner(store: RedisTenants, text: str) -> Tenant | None:
    key = parse_key(text)
    assert key is not None
    found = store.find(key.key_id)
    return found.tenant if found is not None and key.matches(found.digest) else None


def test_add_prints_a_key_that_is_stored_as_a_hash_alone(
    store: RedisTenants, running: tuple[Redis, str], capsys: Capture
) -> None:
    assert tenants("add", "acme", "--requests-per-min", "60", "--weight", "2") == 0
    text = printed_key(capsys)
    assert owner(store, text) == Tenant(name="acme", requests_per_min=60, weight=2.0)
    secret = text.split("-", 2)[2]
    stored = everything_in(running[0])
    assert '"acme"' in stored
    assert secret not in stored
    assert tenants("list") == 0
    assert secret not in capsys.readouterr().out


def test_list_has_a_line_for_each_tenant(store: RedisTenants, capsys: Capture) -> None:
    tenants("add", "acme", "--max-sequences", "4")
    tenants("add", "boss", "--role", "operator")
    capsys.readouterr()
    assert tenants("list") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == list(Tenant.model_fields)
    assert lines[1] == ["acme", "tenant", "1", "-", "-", "4", "-"]
    assert lines[2] == ["boss", "operator", "1", "-", "-", "-", "-"]
    assert tenants("list", "--json") == 0
    assert [t["name"] for t in json.loads(capsys.readouterr().out)] == ["acme", "boss"]


def test_limit_changes_what_is_named_and_lifts_what_is_none(store: RedisTenants) -> None:
    tenants("add", "acme", "--requests-per-min", "60", "--tokens-per-min", "1000")
    assert tenants("limit", "acme", "--requests-per-min", "none", "--kv-quota-tokens", "512") == 0
    expected = Tenant(name="acme", tokens_per_min=1000, kv_quota_tokens=512)
    assert store.tenants() == {"acme": expected}


def test_rotate_lets_the_old_key_end(store: RedisTenants, capsys: Capture) -> None:
    tenants("add", "acme")
    first = printed_key(capsys)
    assert tenants("rotate", "acme") == 0
    second = printed_key(capsys)
    assert owner(store, first) == owner(store, second) == Tenant(name="acme")
    assert tenants("rotate", "acme", "--grace-s", "0") == 0
    third = printed_key(capsys)
    assert [bool(owner(store, text)) for text in (first, second, third)] == [False, False, True]


def test_usage_is_exported_by_day_and_tenant(
    store: RedisTenants, running: tuple[Redis, str], capsys: Capture
) -> None:
    today = datetime.now(UTC).date().isoformat()
    usage = RedisUsage(lambda: running[0])
    for writer in "ab":
        for name in ("acme", "zenith"):
            usage.write(writer, [Entry(Account(today, name), 1, Usage(1, 2, 30, 4, 50, 6, 5))])
    assert tenants("usage") == 0
    assert capsys.readouterr().out.splitlines() == [
        "day,tenant,num_requests,num_refused,num_prompt_tokens,num_cached_tokens,"
        "num_completion_tokens,num_draft_tokens,num_accepted_tokens",
        f"{today},acme,2,4,60,8,100,12,10",
        f"{today},zenith,2,4,60,8,100,12,10",
    ]
    assert tenants("usage", "--tenant", "acme", "--json", "--days", "1") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["tenant"], row["num_completion_tokens"]) == ("acme", 100)


def test_remove_ends_tenant_and_keys(store: RedisTenants, capsys: Capture) -> None:
    tenants("add", "acme")
    text = printed_key(capsys)
    assert tenants("remove", "acme") == 0
    assert (owner(store, text), store.tenants()) == (None, {})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["add", "acme"], "'acme' is there already"),
        (["add", "No Name"], "name: String should match"),
        (["add", "b", "--weight", "0"], "weight: Input should be greater than 0"),
        (["add", "b", "--weight", "none"], "weight: Input should be a valid number"),
        (["limit", "acme", "--max-sequences", "0"], "max_sequences: Input should be greater"),
        (["limit", "nobody"], "'nobody' is no tenant"),
        (["rotate", "nobody"], "'nobody' is no tenant"),
        (["rotate", "acme", "--grace-s", "-1"], "--grace-s -1: expected"),
        (["remove", "nobody"], "'nobody' is no tenant"),
        (["usage", "--days", "0"], "--days 0: expected 1 to 400"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    store: RedisTenants, capsys: Capture, words: list[str], expected: str
) -> None:
    tenants("add", "acme")
    capsys.readouterr()
    assert tenants(*words) == 1
    out, err = capsys.readouterr()
    assert expected in err
    assert (err.count("\n"), out) == (1, "")
    assert store.tenants() == {"acme": Tenant(name="acme")}


def test_a_server_that_is_away_is_named_without_its_password(capsys: Capture) -> None:
    assert tenants("--redis", "redis://a:secret@127.0.0.1:1", "list") == 1
    error = capsys.readouterr().err
    assert error.startswith("redis://a:***@127.0.0.1:1: ConnectionError")
    assert "secret" not in error


def test_the_development_key_is_kept_and_is_an_operator_s(
    running: tuple[Redis, str], tmp_path: Path
) -> None:
    client, url = running
    client.flushall()
    environ = {"REDIS_URL": url, "HEDGEROW_STATE": str(tmp_path)}
    text = development_key(environ)
    assert text is not None
    store = RedisTenants(lambda: client)
    assert owner(store, text) == Tenant(name="development", role="operator")
    assert (tmp_path / "development-key").stat().st_mode & 0o777 == 0o600
    client.flushall()
    assert development_key(environ) == text
    assert owner(store, text) is not None
    (tmp_path / "development-key").unlink()
    other = development_key(environ)
    assert other is not None
    assert (owner(store, text), bool(owner(store, other))) == (None, True)


def test_a_redis_of_the_tenants_own_gets_no_development_key(tmp_path: Path) -> None:
    environ = {"HEDGEROW_TENANTS_REDIS_URL": "redis://127.0.0.1:1"}
    assert development_key({**environ, "HEDGEROW_STATE": str(tmp_path)}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_development_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "development-key").write_text("x" * 70)
    (tmp_path / "development-key").chmod(0o644)
    with pytest.raises(DevelopmentKeyError, match="others may read it"):
        development_key({"HEDGEROW_STATE": str(tmp_path)})
