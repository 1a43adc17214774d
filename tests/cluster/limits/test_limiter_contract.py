"""What every limiter promises, whatever it is kept in."""

from __future__ import annotations

import itertools

import pytest
from tenant_stores import Backend

from cluster.limits.limiter import LEASE_S, Lease, LimiterError, Quota, Verdict
from cluster.limits.redis_limiter import RedisLimiter
from cluster.statistics.client import connect

_IDS = itertools.count()


def lease(tenant: str = "acme", num_sequences: int = 1) -> Lease:
    return Lease(tenant, f"lease-{next(_IDS)}", num_sequences)


def ask(backend: Backend, quota: Quota, num_tokens: int = 0, tenant: str = "acme") -> Verdict:
    return backend.limiter.admit(lease(tenant), quota, num_tokens)


def test_without_limits_everything_is_taken(backend: Backend) -> None:
    for _ in range(50):
        assert ask(backend, Quota(), 10**6) == Verdict(None, 0.0, None, None)


def test_a_full_bucket_of_requests_empties_and_fills_evenly(backend: Backend) -> None:
    quota = Quota(requests_per_min=6)
    left = [ask(backend, quota).num_requests_left for _ in range(6)]
    assert left == [5, 4, 3, 2, 1, 0]
    refused = ask(backend, quota)
    assert refused.refused_by == "requests"
    assert refused.wait_s == pytest.approx(10.0, abs=1.0)
    backend.advance(10.1)
    assert ask(backend, quota).refused_by is None
    assert ask(backend, quota).refused_by == "requests"
    backend.advance(10_000.0)
    assert ask(backend, quota).num_requests_left == 5


def test_a_refusal_costs_nothing(backend: Backend) -> None:
    quota = Quota(requests_per_min=100, tokens_per_min=600)
    assert ask(backend, quota, 600).num_tokens_left == 0
    for _ in range(5):
        refused = ask(backend, quota, 300)
        assert (refused.refused_by, refused.num_requests_left) == ("tokens", 99)
        assert refused.wait_s == pytest.approx(30.0, abs=1.0)


def test_tokens_that_were_not_used_come_back(backend: Backend) -> None:
    quota, mine = Quota(tokens_per_min=1000), lease()
    assert backend.limiter.admit(mine, quota, 900).num_tokens_left == 100
    backend.limiter.settle(mine, quota, 700)
    left = ask(backend, quota, 0).num_tokens_left
    assert left is not None
    assert 800 <= left <= 810


def test_tokens_beyond_what_was_taken_are_owed(backend: Backend) -> None:
    quota, mine = Quota(tokens_per_min=600), lease()
    backend.limiter.admit(mine, quota, 600)
    backend.limiter.settle(mine, quota, -300)
    refused = ask(backend, quota, 0)
    assert (refused.refused_by, refused.num_tokens_left) == ("tokens", 0)
    assert refused.wait_s == pytest.approx(30.0, abs=1.0)
    backend.advance(31.0)
    assert ask(backend, quota, 0).refused_by is None


def test_a_bucket_never_holds_more_than_a_minute(backend: Backend) -> None:
    quota, mine = Quota(tokens_per_min=600), lease()
    backend.limiter.admit(mine, quota, 600)
    backend.advance(30.0)
    backend.limiter.settle(mine, quota, 600)
    assert ask(backend, quota, 600).num_tokens_left == 0


def test_a_lowered_limit_holds_at_once(backend: Backend) -> None:
    assert ask(backend, Quota(requests_per_min=1000)).num_requests_left == 999
    assert ask(backend, Quota(requests_per_min=3)).num_requests_left == 2


def test_sequences_are_held_until_they_are_settled(backend: Backend) -> None:
    quota = Quota(max_sequences=4)
    first, second = lease(num_sequences=3), lease(num_sequences=1)
    assert backend.limiter.admit(first, quota, 0).refused_by is None
    assert backend.limiter.admit(lease(num_sequences=2), quota, 0).refused_by == "sequences"
    assert backend.limiter.admit(second, quota, 0).refused_by is None
    assert ask(backend, quota).refused_by == "sequences"
    backend.limiter.settle(first, quota, 0)
    backend.limiter.settle(first, quota, 0)
    assert backend.limiter.admit(lease(num_sequences=3), quota, 0).refused_by is None


def test_a_lease_that_nobody_renews_ends(backend: Backend) -> None:
    quota, kept, lost = Quota(max_sequences=2), lease(), lease()
    backend.limiter.admit(kept, quota, 0)
    backend.limiter.admit(lost, quota, 0)
    backend.advance(LEASE_S - 5)
    backend.limiter.renew("replica", [kept])
    assert ask(backend, quota).refused_by == "sequences"
    backend.advance(6.0)
    assert ask(backend, quota).refused_by is None
    assert ask(backend, quota).refused_by == "sequences"


def test_a_refused_request_holds_no_sequence(backend: Backend) -> None:
    both = Quota(requests_per_min=1, max_sequences=2)
    assert ask(backend, both).refused_by is None
    assert ask(backend, both).refused_by == "requests"
    assert ask(backend, Quota(max_sequences=2)).refused_by is None


def test_tenants_do_not_see_each_other(backend: Backend) -> None:
    quota = Quota(requests_per_min=1, tokens_per_min=10, max_sequences=1)
    assert ask(backend, quota, 10, "acme").refused_by is None
    assert ask(backend, quota, 10, "zenith").refused_by is None
    assert ask(backend, quota, 10, "acme").refused_by is not None


def test_replicas_are_counted_while_they_are_alive(backend: Backend) -> None:
    assert [backend.limiter.renew(name, []) for name in ("a", "b", "a")] == [1, 2, 2]
    backend.advance(LEASE_S - 1)
    backend.limiter.renew("b", [])
    backend.advance(2.0)
    assert backend.limiter.renew("c", []) == 2


def test_a_replica_s_share_is_never_nothing() -> None:
    quota = Quota(requests_per_min=10, tokens_per_min=3, max_sequences=None)
    assert quota.shared_by(4) == Quota(requests_per_min=2, tokens_per_min=1, max_sequences=None)


def test_a_server_that_is_away_is_a_limiter_error() -> None:
    with connect("redis://127.0.0.1:1") as client:
        limiter = RedisLimiter(lambda: client)
        with pytest.raises(LimiterError, match="ConnectionError"):
            limiter.admit(lease(), Quota(), 0)
        with pytest.raises(LimiterError):
            limiter.renew("a", [lease()])
