"""Limits of a tenant, as its clients see them, with and without the shared limiter."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from cluster.config import Limits
from cluster.limits.limiter import Lease, LimiterError, Quota, Verdict
from cluster.limits.memory import MemoryLimiter
from cluster.limits.usage import Account, Usage
from cluster.tenants.tenant import Tenant
from deployments.admission import _today
from deployments.rate_limits import duration

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(asyncio.ensure_future(test()), 30)

    asyncio.run(bounded())


class Watched:
    """A limiter that can be away, and whose calls are counted."""

    def __init__(self) -> None:
        self.inner = MemoryLimiter(time.monotonic)
        self.is_away = False
        self.calls: list[str] = []
        self.num_replicas = 1

    def admit(self, lease: Lease, quota: Quota, num_tokens: int) -> Verdict:
        self._note("admit")
        return self.inner.admit(lease, quota, num_tokens)

    def settle(self, lease: Lease, quota: Quota, num_unused: int) -> None:
        self._note(f"settle {num_unused}")
        self.inner.settle(lease, quota, num_unused)

    def renew(self, replica_id: str, leases: Sequence[Lease]) -> int:
        self._note(f"renew {len(leases)}")
        return self.num_replicas

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.is_away:
            raise LimiterError("away")


def body(**more: object) -> dict[str, object]:
    return {"model": "tiny", "prompt": "abc", "max_tokens": 6, **more}


async def post(server: Any, login: dict[str, str], **more: object) -> Any:
    return await server.client.post(COMPLETIONS, json=body(**more), headers=login)


async def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.002)


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


def test_tokens_that_an_answer_did_not_need_are_given_back(serving: Any) -> None:
    async def test() -> None:
        limiter = Watched()
        async with serving(limiter=limiter) as server:
            login = server.login(Tenant(name="acme", tokens_per_min=1000))
            await post(server, login, max_tokens=400, stop="Gr")
            await until(lambda: "settle 397" in limiter.calls)

    run(test)


def test_choices_at_once_are_bounded_and_freed_when_a_client_hangs_up(serving: Any) -> None:
    async def test() -> None:
        async with serving(tokens_per_round=0) as server:  # which never finishes
            login = server.login(Tenant(name="acme", max_sequences=2))
            first = asyncio.ensure_future(post(server, login, n=2))
            await until(lambda: len(server.engine.live) == 2)
            answer = await post(server, login)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert "2 choices at once" in answer.json()["error"]["message"]
            other = server.login(Tenant(name="zenith", max_sequences=2))
            second = asyncio.ensure_future(post(server, other))
            await until(lambda: len(server.engine.live) == 3)
            first.cancel()
            second.cancel()
            await until(lambda: not server.engine.live)
            third = asyncio.ensure_future(post(server, login, n=2))
            await until(lambda: len(server.engine.live) == 2)
            third.cancel()
            await asyncio.wait([first, second, third])

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


def test_whoever_leaves_while_a_limit_is_looked_up_holds_nothing(serving: Any) -> None:
    async def test() -> None:
        limiter, may_go_on = Watched(), threading.Event()
        whole = limiter.inner.admit
        limiter.inner.admit = lambda *a: (may_go_on.wait(10), whole(*a))[1]  # type: ignore
        async with serving(limiter=limiter) as server:
            login = server.login(Tenant(name="acme", max_sequences=1))
            asked = asyncio.ensure_future(post(server, login))
            await until(lambda: limiter.calls == ["admit"])
            asked.cancel()
            await asyncio.sleep(0)
            may_go_on.set()
            await until(lambda: len(limiter.calls) == 2)
            assert limiter.calls[1].startswith("settle")
            assert (await post(server, login)).status_code == 200

    run(test)


def test_a_stream_that_cannot_begin_holds_nothing(serving: Any) -> None:
    """Its client is gone before the first header is written."""

    async def test() -> None:
        async with serving() as server:
            login = server.login(Tenant(name="acme", max_sequences=1))

            async def send(message: Any) -> None:
                raise OSError("gone")

            is_read = False

            async def receive() -> Any:
                nonlocal is_read
                if is_read:
                    await asyncio.Event().wait()
                is_read = True
                content = json.dumps(
                    {
                        "model": "tiny",
                        "messages": [{"role": "user", "content": "a"}],
                        "stream": True,
                        "max_tokens": 90,
                    }
                )
                return {"type": "http.request", "body": content.encode(), "more_body": False}

            headers = [(b"authorization", login["Authorization"].encode())]
            scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers}
            with pytest.raises(OSError, match="gone"):
                await server.app({**scope, "query_string": b""}, receive, send)
            await until(lambda: not server.engine.live)
            assert (await post(server, login)).status_code == 200

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


def test_what_runs_is_renewed_and_what_has_ended_is_not(serving: Any) -> None:
    async def test() -> None:
        limiter = Watched()
        async with serving(limiter=limiter, tokens_per_round=0) as server:
            login = server.login(Tenant(name="acme", max_sequences=9))
            running = asyncio.ensure_future(post(server, login))
            await until(lambda: bool(server.engine.live))
            await server.admission.renew()
            assert limiter.calls[-1] == "renew 1"
            running.cancel()
            await asyncio.wait([running])
            await until(lambda: not server.engine.live)
            await server.admission.renew()
            assert "renew 0" in limiter.calls

    run(test)


def test_every_tenant_s_account_has_what_it_used_and_what_was_refused(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            acme = server.login(Tenant(name="acme", requests_per_min=2))
            await post(server, acme, n=2)
            async with server.client.stream(
                "POST", COMPLETIONS, json=body(stream=True), headers=acme
            ) as answer:
                assert answer.status_code == 200
                await answer.aread()
            for _ in range(3):
                assert (await post(server, acme)).status_code == 429
            assert (await post(server, server.login(Tenant(name="zenith")), n=0)).status_code == 400
            server.admission.close()
            assert server.usage.read([_today()]) == {
                Account(_today(), "acme"): Usage(
                    num_requests=2,
                    num_refused=3,
                    num_prompt_tokens=6,
                    num_cached_tokens=2,
                    num_completion_tokens=18,
                    num_draft_tokens=15,
                    num_accepted_tokens=9,
                )
            }

    run(test)


def test_what_the_target_refuses_holds_nothing_and_costs_no_tokens(serving: Any) -> None:
    async def test() -> None:
        limiter = Watched()
        async with serving(limiter=limiter, capacity=1) as server:
            login = server.login(Tenant(name="acme", tokens_per_min=1000, max_sequences=2))
            answer = await post(server, login, n=2)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            await until(lambda: "settle 15" in limiter.calls)
            assert (await post(server, login)).status_code == 200

    run(test)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_ends_at_its_own_deadline(serving: Any, stream: bool) -> None:
    async def test() -> None:
        async with serving(Limits(request_timeout_s=20), tokens_per_round=0) as server:
            login = server.login(Tenant(name="acme"))
            hedgerow = {"timeout_s": 0.05}
            answer = await post(server, login, stream=stream, hedgerow=hedgerow)
            if not stream:
                assert answer.status_code == 504
            assert '"code":"timeout"' in answer.text
            assert "[DONE]" not in answer.text
            await until(lambda: not server.engine.live)

    run(test)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.02, "20ms"), (1.5, "1.5s"), (360, "6m0s"), (61, "1m1s")]
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
