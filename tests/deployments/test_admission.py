"""Limits of a tenant, as its clients see them, with and without the shared limiter."""

from __future__ import annotations

from typing import Any

import pytest
from http_calls import COMPLETIONS, run
from watched_limiter import Watched, post

from cluster.tenants.tenant import Tenant
from deployments.rate_limits import duration


def test_a_tenant_without_limits_is_never_asked_about(serving: Any) -> None:
    async def test() -> None:
        limiter = Watched()
        async with serving(limiter=limiter) as server:
            answer = await post(server, server.login(Tenant(name="acme")))
            assert answer.status_code == 200
            assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
            assert limiter.calls == []

    run(test)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_says_what_is_left(serving: Any, stream: bool) -> None:
    async def test() -> None:
        async with serving() as server:
            login = server.login(Tenant(name="acme", requests_per_min=10, tokens_per_min=600))
            answer = await post(server, login, stream=stream)
            assert answer.status_code == 200
            headers = {k: v for k, v in answer.headers.items() if k.startswith("x-ratelimit")}
            assert headers == {
                "x-ratelimit-limit-requests": "10",
                "x-ratelimit-remaining-requests": "9",
                "x-ratelimit-reset-requests": "6s",
                "x-ratelimit-limit-tokens": "600",
                "x-ratelimit-remaining-tokens": "591",
                "x-ratelimit-reset-tokens": "900ms",
            }

    run(test)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"requests_per_min": 1}, "the limit of 1 requests a minute is reached; try again in"),
        ({"tokens_per_min": 10}, "the limit of 10 tokens a minute is reached; try again in"),
    ],
)
def test_over_a_limit_is_429_with_the_time_to_wait(
    serving: Any, stream: bool, limits: dict[str, int], expected: str
) -> None:
    async def test() -> None:
        async with serving() as server:
            login = server.login(Tenant.model_validate({"name": "acme", **limits}))
            assert (await post(server, login, max_tokens=7)).status_code == 200
            answer = await post(server, login, max_tokens=7, stream=stream)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
            (name,) = {k.removesuffix("_per_min") for k in limits}
            assert answer.headers[f"x-ratelimit-remaining-{name}"] == "0"
            error = answer.json()["error"]
            assert error["message"].startswith(expected)
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert len(server.engine.seen) == 1

    run(test)


def test_what_was_refused_a_moment_ago_is_refused_before_its_body_is_read(serving: Any) -> None:
    async def test() -> None:
        limiter = Watched()
        async with serving(limiter=limiter) as server:
            login = server.login(Tenant(name="acme", requests_per_min=1))
            statuses = [(await post(server, login)).status_code for _ in range(3)]
            assert statuses == [200, 429, 429]
            late = await server.client.post(COMPLETIONS, content=b"{", headers=login)
            assert late.status_code == 429
            assert late.headers["retry-after"]
            assert limiter.calls.count("admit") == 2

    run(test)


@pytest.mark.parametrize(
    ("tenant", "more", "parameter"),
    [
        (Tenant(name="acme", tokens_per_min=2), {}, None),
        (Tenant(name="acme", max_sequences=2), {"n": 3}, "n"),
    ],
)
def test_what_no_waiting_helps_is_a_bad_request(
    serving: Any, tenant: Tenant, more: dict[str, object], parameter: str | None
) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await post(server, server.login(tenant), **more)
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == (parameter, "rate_limit_exceeded")

    run(test)


def test_more_than_a_minute_s_tokens_are_taken_if_the_prompt_fits(serving: Any) -> None:
    """An answer may be shorter than it might become."""

    async def test() -> None:
        async with serving() as server:
            login = server.login(Tenant(name="acme", tokens_per_min=50))
            assert (await post(server, login, max_tokens=400, stop="Gr")).status_code == 200

    run(test)


def test_without_the_shared_limiter_a_replica_keeps_to_its_part(serving: Any) -> None:
    async def test() -> None:
        limiter = Watched()
        limiter.num_replicas = 3
        async with serving(limiter=limiter) as server:
            login = server.login(Tenant(name="acme", requests_per_min=9))
            await server.admission.renew()
            limiter.is_away = True
            statuses = [(await post(server, login)).status_code for _ in range(5)]
            assert statuses == [200, 200, 200, 429, 429]
            assert limiter.calls.count("admit") == 3  # then the breaker opens

    run(test)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.02, "20ms"), (1.5, "1.5s"), (360, "6m0s"), (61, "1m1s")]
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
