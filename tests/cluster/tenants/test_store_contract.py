"""What every store of tenants promises."""

from __future__ import annotations

import pytest
from redis import Redis
from tenant_stores import Backend

from cluster.statistics.client import connect
from cluster.tenants.api_key import new_key, parse_key
from cluster.tenants.redis_store import RedisTenants
from cluster.tenants.store import TenantStoreError
from cluster.tenants.tenant import Tenant

ACME = Tenant(name="acme", weight=2.5, requests_per_min=60, kv_quota_tokens=4096)


def test_a_key_finds_its_tenant_and_the_hash_of_itself(backend: Backend) -> None:
    key, store = new_key(), backend.tenants
    assert store.put(ACME, None)
    assert store.add_key("acme", key.key_id, key.digest, None)
    found = store.find(key.key_id)
    assert (found.tenant, found.digest) == (ACME, key.digest)
    assert store.find(new_key().key_id) is None
    assert store.tenants() == {"acme": ACME}


def test_a_tenant_is_made_once_and_changed_only_from_what_it_was(backend: Backend) -> None:
    store, other = backend.tenants, ACME.model_copy(update={"weight": 1.0})
    assert store.put(ACME, None)
    assert not store.put(other, None)
    assert not store.put(other, other)
    assert store.put(other, ACME)
    assert store.tenants() == {"acme": other}


def test_a_tenant_can_be_changed_whose_record_an_older_version_wrote(backend: Backend) -> None:
    store, old = backend.tenants, Tenant(name="acme")
    store.put(old, None)
    client: Redis | None = getattr(backend, "client", None)
    if client is not None:
        client.hset("hedgerow:tenants:{1}:tenants", "acme", '{"name": "acme"}')
    assert store.put(ACME, store.tenants()["acme"])
    assert not store.put(old, old)
    assert store.tenants() == {"acme": ACME}


def test_a_key_needs_a_tenant(backend: Backend) -> None:
    assert not backend.tenants.add_key("nobody", "0" * 16, "d", None)
    assert backend.tenants.find("0" * 16) is None


def test_a_change_of_limits_holds_for_the_keys_that_are_there(backend: Backend) -> None:
    store = backend.tenants
    store.put(ACME, None)
    store.add_key("acme", "a", "d", None)
    slower = ACME.model_copy(update={"requests_per_min": 1})
    store.put(slower, ACME)
    assert store.find("a").tenant == slower


def test_keys_go_on_beside_each_other_for_as_long_as_was_said(backend: Backend) -> None:
    store = backend.tenants
    store.put(ACME, None)
    for name, grace_s in (("a", None), ("b", None), ("c", 100.0)):
        assert store.add_key("acme", name, "d", grace_s)
    backend.advance(99.0)
    assert all(store.find(name) for name in "abc")
    backend.advance(2.0)
    assert [bool(store.find(name)) for name in "abc"] == [False, False, True]


def test_a_later_rotation_never_prolongs_an_old_key(backend: Backend) -> None:
    store = backend.tenants
    store.put(ACME, None)
    for name, grace_s in (("a", None), ("b", 10.0), ("c", 1000.0)):
        store.add_key("acme", name, "d", grace_s)
    backend.advance(11.0)
    assert [bool(store.find(name)) for name in "abc"] == [False, True, True]
    store.add_key("acme", "d", "d", 0.0)
    assert [bool(store.find(name)) for name in "abcd"] == [False, False, False, True]


def test_a_removed_tenant_s_keys_are_gone_and_nobody_else_s(backend: Backend) -> None:
    store = backend.tenants
    for name in ("acme", "zenith"):
        store.put(Tenant(name=name), None)
        store.add_key(name, name, "d", None)
    assert store.remove("acme")
    assert not store.remove("acme")
    assert store.find("acme") is None
    assert store.find("zenith").tenant.name == "zenith"
    store.put(ACME, None)
    assert store.find("acme") is None


def test_a_server_that_is_away_is_a_store_error() -> None:
    with connect("redis://127.0.0.1:1") as client:
        store = RedisTenants(lambda: client)
        for call in (store.tenants, lambda: store.find("a"), lambda: store.remove("a")):
            with pytest.raises(TenantStoreError, match="ConnectionError"):
                call()


def test_a_record_that_cannot_be_read_lets_nobody_in(backend: Backend) -> None:
    client: Redis | None = getattr(backend, "client", None)
    backend.tenants.put(ACME, None)
    backend.tenants.add_key("acme", "a", "d", None)
    if client is None:
        assert backend.tenants.find("a") is not None
        return
    client.hset("hedgerow:tenants:{1}:tenants", "acme", '{"name": "acme", "weight": -1}')
    with pytest.raises(TenantStoreError, match="cannot be read"):
        backend.tenants.find("a")


def test_a_field_of_a_newer_version_is_passed_over(backend: Backend) -> None:
    newer = '{"name": "acme", "role": "operator", "colour": "green"}'
    assert Tenant.model_validate_json(newer) == Tenant(name="acme", role="operator")


def test_a_key_s_text_is_in_no_words_about_it() -> None:
    key = new_key()
    assert key.text not in repr(key)
    assert parse_key(key.text) == key
    assert key.matches(key.digest)
    assert not key.matches(new_key().digest)
    assert not key.matches(None)
    for wrong in ("", "sk-abc", key.text[:-1], f"{key.text}x", key.text.upper(), f" {key.text}"):
        assert parse_key(wrong) is None
