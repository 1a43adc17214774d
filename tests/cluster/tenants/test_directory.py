"""How long a key is believed: while the store answers, while it does not, and when it lies low."""

from __future__ import annotations

import pytest

from cluster.statistics.breaker import Breaker
from cluster.tenants import directory
from cluster.tenants.api_key import ApiKey, new_key
from cluster.tenants.directory import MAX_AGE_S, MAX_OUTAGE_S, Directory
from cluster.tenants.memory import MemoryTenants
from cluster.tenants.store import Credential, TenantStoreError
from cluster.tenants.tenant import Tenant


class World:
    """A store that can be away, a clock, and a directory before them."""

    def __init__(self) -> None:
        self.now_s, self.is_away, self.num_asked = 0.0, False, 0
        self.store = MemoryTenants(lambda: self.now_s)
        self.store.put(Tenant(name="acme"), None)
        clock = lambda: self.now_s  # noqa: E731
        self.directory = Directory(self, clock, Breaker(clock, lambda: 0.5))

    def find(self, key_id: str) -> Credential | None:
        self.num_asked += 1
        if self.is_away:
            raise TenantStoreError("away")
        return self.store.find(key_id)

    def add(self) -> ApiKey:
        key = new_key()
        self.store.add_key("acme", key.key_id, key.digest, None)
        return key

    def tenant_of(self, key: ApiKey) -> Tenant | None:
        """As an ingress does it. Raises TenantStoreError where it cannot know."""
        known = self.directory.recall(key.key_id)
        if known is None:
            try:
                known = self.directory.ask(key.key_id)
                self.directory.learn(key.key_id, known)
            except TenantStoreError:
                known = self.directory.fall_back(key.key_id)
                if known is None:
                    raise
        return known.tenant_of(key)


def test_a_known_key_is_asked_for_once_in_a_while() -> None:
    world = World()
    key = world.add()
    for _ in range(5):
        assert world.tenant_of(key) == Tenant(name="acme")
    assert world.num_asked == 1
    world.now_s += MAX_AGE_S
    assert world.tenant_of(key) == Tenant(name="acme")
    assert world.num_asked == 2


def test_a_removed_key_goes_on_for_no_longer_than_the_bound() -> None:
    world = World()
    key = world.add()
    world.tenant_of(key)
    world.store.remove("acme")
    world.now_s += MAX_AGE_S - 0.01
    assert world.tenant_of(key) is not None
    world.now_s += 0.02
    assert world.tenant_of(key) is None


def test_a_right_id_with_a_wrong_secret_is_nobody() -> None:
    world = World()
    key = world.add()
    forged = ApiKey(new_key().text, key.key_id)
    assert world.tenant_of(key) is not None
    assert world.tenant_of(forged) is None


def test_known_keys_go_on_while_the_store_is_away_and_unknown_ones_do_not_start() -> None:
    world = World()
    key, late = world.add(), world.add()
    world.tenant_of(key)
    world.is_away = True
    world.now_s += 100 * MAX_AGE_S
    assert world.tenant_of(key) == Tenant(name="acme")
    with pytest.raises(TenantStoreError):
        world.tenant_of(late)
    world.now_s = MAX_OUTAGE_S + 1
    with pytest.raises(TenantStoreError):
        world.tenant_of(key)


def test_that_a_key_is_unknown_is_not_believed_through_an_outage() -> None:
    """It may have been added since; better to say that it cannot be known."""
    world = World()
    absent = new_key()
    assert world.tenant_of(absent) is None
    world.is_away = True
    world.now_s += MAX_AGE_S
    with pytest.raises(TenantStoreError):
        world.tenant_of(absent)


def test_a_store_that_is_away_is_not_asked_at_every_request() -> None:
    world = World()
    key = world.add()
    world.tenant_of(key)
    world.is_away, world.now_s = True, world.now_s + MAX_AGE_S
    before = world.num_asked
    for _ in range(50):
        assert world.tenant_of(key) is not None
    assert world.num_asked - before <= 3


def test_guesses_drive_out_no_real_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "MAX_KEYS", 3)
    world = World()
    key = world.add()
    world.tenant_of(key)
    for _ in range(20):
        assert world.tenant_of(new_key()) is None
    before = world.num_asked
    assert world.tenant_of(key) is not None
    assert world.num_asked == before
    assert len(world.directory._absent) == 3
