"""Who gets in: every route is closed but one, and a key is looked up as seldom as may be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from http_calls import run
from starlette.routing import Route

from cluster.tenants.api_key import new_key
from cluster.tenants.store import Credential, TenantStoreError
from cluster.tenants.tenant import Tenant
from deployments.authentication import MAX_ASKING, Authentication, Headers
from deployments.errors import ApiError

COMPLETIONS = "/v1/completions"
FOR_TENANTS = {
    "/v1/chat/completions",
    COMPLETIONS,
    "/v1/models",
    "/v1/models/{name:path}",
    "/openapi.json",
}
BODY = {"model": "tiny", "prompt": "a", "max_tokens": 1}


def routes(server: Any) -> list[tuple[str, str]]:
    """Path and method of every route that the application has, whatever it is."""
    found = []
    for route in server.app.routes:
        assert isinstance(route, Route), f"{route} would not be walked"
        found += [(route.path, method) for method in sorted(route.methods or {"GET"})]
    return found


def test_every_route_but_health_needs_a_key(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            walked = routes(server)
            assert ("/health", "GET") in walked
            assert {path for path, _ in walked} > FOR_TENANTS
            for path, method in walked:
                for wrong in ({}, {"Authorization": f"Bearer {new_key().text}"}):
                    server.client.headers.pop("Authorization", None)
                    answer = await server.client.request(method, path, headers=wrong)
                    assert answer.status_code == (200 if path == "/health" else 401), path
            assert not server.engine.seen

    run(test)


def test_routes_are_for_operators_unless_they_are_listed(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            login = server.login(Tenant(name="acme"))
            for path, method in routes(server):
                answer = await server.client.request(method, path, headers=login)
                is_closed = path != "/health" and path not in FOR_TENANTS
                assert (answer.status_code == 403) == is_closed, path
                assert answer.status_code != 401

    run(test)


@pytest.mark.parametrize(
    "path", ["/", "/health/", "//health", "/health/x", "/HEALTH", "/v1/nothing", "/openapi.json"]
)
def test_what_is_no_route_is_closed_too(serving: Any, path: str) -> None:
    async def test() -> None:
        async with serving() as server:
            server.client.headers.pop("Authorization")
            assert (await server.client.get(f"http://test{path}")).status_code == 401

    run(test)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "Bearer hr-0000000000000000-" + "A" * 43,
        "Bearer {key}x",
        "Bearer {key} {key}",
        "{key}",
        "Bearer \xff{key}",
    ],
)
def test_what_is_no_key_of_ours_is_unauthorized_and_never_repeated(
    serving: Any, value: str
) -> None:
    async def test() -> None:
        async with serving() as server:
            key = server.client.headers.pop("Authorization").removeprefix("Bearer ")
            given = value.replace("{key}", key).encode("latin-1")
            answer = await server.client.post(
                COMPLETIONS, json=BODY, headers={"Authorization": given}
            )
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
            assert key not in answer.text

    run(test)


def test_two_keys_at_once_are_none(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            value = server.client.headers.pop("Authorization")
            headers = [("Authorization", value), ("Authorization", value)]
            answer = await server.client.get("/v1/models", headers=headers)
            assert answer.status_code == 401

    run(test)


def test_the_scheme_s_case_does_not_matter(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            value = server.client.headers["Authorization"].replace("Bearer", "bearer")
            answer = await server.client.get("/v1/models", headers={"Authorization": value})
            assert answer.status_code == 200

    run(test)


def test_the_tenant_is_the_engine_s_with_its_weight_and_quota(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            tenant = Tenant(name="acme", weight=2.5, kv_quota_tokens=64)
            answer = await server.client.post(COMPLETIONS, json=BODY, headers=server.login(tenant))
            assert answer.status_code == 200
            (request,) = server.engine.seen
            assert (request.tenant, request.weight, request.kv_quota_tokens) == ("acme", 2.5, 64)

    run(test)


def test_more_than_a_tenant_s_quota_is_refused_by_name(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            login = server.login(Tenant(name="acme", kv_quota_tokens=64))
            for body, parameter in (({"max_tokens": 64}, "max_tokens"), ({}, None)):
                given = {"model": "tiny", "prompt": "a", **body}
                answer = await server.client.post(COMPLETIONS, json=given, headers=login)
                if parameter is None:
                    assert answer.status_code == 200
                else:
                    assert answer.status_code == 400
                    assert answer.json()["error"]["param"] == parameter

    run(test)


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ([(f"x-{number}", "1") for number in range(120)], "/v1/models", 431),
        ([("x-long", "a" * 40_000)], "/v1/models", 431),
        ([], "/v1/models/" + "a" * 3000, 414),
        ([], "/v1/models?" + "a" * 3000, 414),
    ],
    ids=["many headers", "long headers", "long path", "long query"],
)
def test_headers_and_paths_are_bounded_before_a_key_is_looked_up(
    serving: Any, headers: list[tuple[str, str]], path: str, status: int
) -> None:
    async def test() -> None:
        async with serving() as server:
            server.client.headers.pop("Authorization")
            answer = await server.client.get(path, headers=headers)
            assert answer.status_code == status
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    run(test)


class SlowFinder:
    """A store whose answers wait for a word."""

    def __init__(self, credential: Credential | None) -> None:
        self.credential, self.num_asked = credential, 0
        self.is_away, self.num_away = False, 0
        self.may_answer = threading.Event()

    def find(self, key_id: str) -> Credential | None:
        self.num_asked += 1
        assert self.may_answer.wait(20)
        if self.is_away or self.num_asked <= self.num_away:
            raise TenantStoreError("away")
        return self.credential


@dataclass(slots=True)
class Door:
    """`headers` have the key of `tenant`; the store answers when it `may_answer`."""

    tenant: Tenant
    headers: Headers
    finder: SlowFinder
    now_s: float = 0.0
    authentication: Authentication = field(init=False)

    def __post_init__(self) -> None:
        self.authentication = Authentication(self.finder, lambda: self.now_s, (0.0, 0.0))

    async def ask(self, headers: Headers | None = None) -> Tenant:
        return await self.authentication.tenant_of(headers or self.headers)


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {key}".encode())]


@pytest.fixture
def door() -> Iterator[Door]:
    key, tenant = new_key(), Tenant(name="acme")
    found = Door(tenant, bearer(key.text), SlowFinder(Credential(tenant, key.digest)))
    yield found
    found.authentication.close()


def test_requests_with_one_key_ask_once_and_a_cancelled_one_stops_no_other(door: Door) -> None:
    async def test() -> None:
        asks = [asyncio.ensure_future(door.ask()) for _ in range(8)]
        await asyncio.sleep(0)
        asks[0].cancel()
        door.finder.may_answer.set()
        assert await asyncio.gather(*asks[1:]) == [door.tenant] * 7
        assert door.finder.num_asked == 1

    run(test)


def test_while_the_store_is_away_known_keys_go_on_and_others_may_try_again(door: Door) -> None:
    async def test() -> None:
        door.finder.may_answer.set()
        assert await door.ask() == door.tenant
        door.finder.is_away, door.now_s = True, 3600.0
        assert await door.ask() == door.tenant
        with pytest.raises(ApiError) as caught:
            await door.ask(bearer(new_key().text))
        assert (caught.value.status, caught.value.retry_after_s) == (503, 1)

    run(test)


@pytest.mark.parametrize("num_away", [2, 3])
def test_a_store_that_is_only_starting_is_asked_again(door: Door, num_away: int) -> None:
    async def test() -> None:
        door.finder.may_answer.set()
        door.finder.num_away = num_away
        if num_away == 2:
            assert await door.ask() == door.tenant
        else:
            with pytest.raises(ApiError, match="at the moment"):
                await door.ask()
        assert door.finder.num_asked == 3

    run(test)


def test_a_flood_of_unknown_keys_is_bounded_and_known_keys_go_on(door: Door) -> None:
    async def test() -> None:
        door.finder.may_answer.set()
        assert await door.ask() == door.tenant
        door.finder.may_answer.clear()
        flood = [asyncio.ensure_future(door.ask(bearer(new_key().text))) for _ in range(MAX_ASKING)]
        await asyncio.sleep(0)
        door.now_s = 10.0
        assert await door.ask() == door.tenant
        with pytest.raises(ApiError) as caught:
            await door.ask(bearer(new_key().text))
        assert caught.value.status == 503
        door.finder.may_answer.set()
        refused = await asyncio.gather(*flood, return_exceptions=True)
        assert all(isinstance(each, ApiError) and each.status == 401 for each in refused)

    run(test)
