"""What a request holds of its tenant's limits is given back however it ends, and accounted for."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from http_calls import CHAT, COMPLETIONS, run
from watched_limiter import Watched, body, post, until

from cluster.limits.usage import Account, Usage
from cluster.settings import Limits
from cluster.tenants.tenant import Tenant
from deployments.admission import _today


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
