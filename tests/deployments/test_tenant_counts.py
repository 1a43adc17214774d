"""What each tenant asked is counted at the ingress, under few names, without a word of it."""

from __future__ import annotations

import re
from typing import Any

from http_calls import run

from cluster.tenants.tenant import Tenant
from deployments.metrics import render_metrics
from deployments.tenant_counts import TenantCounts
from engine.usage import MAX_TENANTS, OTHER_TENANTS

PATH = "/v1/completions"


def samples(text: str) -> dict[str, float]:
    """By name and labels, without our prefix."""
    lines = re.findall(r"^hedgerow:(tenant_\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def test_requests_refusals_and_prompt_tokens_are_counted_by_tenant(serving: Any) -> None:
    async def test() -> None:
        async with serving(capacity=1) as server:
            acme = server.login(Tenant(name="acme"))
            bob = server.login(Tenant(name="bob", requests_per_min=1))
            good = {"model": "tiny", "prompt": "abc", "max_tokens": 2}
            for login, body in (
                (acme, good),
                (acme, good | {"stream": True}),
                (acme, good | {"temperature": 9}),
                (acme, good | {"n": 2}),
                (bob, good),
                (bob, good),
            ):
                await server.client.post(PATH, json=body, headers=login)
            found = samples((await server.client.get("/metrics")).text)
            assert found['tenant_requests_total{tenant="acme"}'] == 4
            assert found['tenant_requests_total{tenant="bob"}'] == 2
            assert found['tenant_prompt_tokens_total{tenant="acme"}'] == 6
            assert found['tenant_prompt_tokens_total{tenant="bob"}'] == 3
            refusals = {
                name: value for name, value in found.items() if "refusals" in name and value
            }
            assert refusals == {
                'tenant_refusals_total{reason="invalid_value",tenant="acme"}': 1,
                'tenant_refusals_total{reason="overloaded",tenant="acme"}': 1,
                'tenant_refusals_total{reason="rate_limit_exceeded",tenant="bob"}': 1,
            }

    run(test)


def test_who_has_no_key_and_what_was_asked_leave_no_name(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            server.client.headers["Authorization"] += "x"
            body = {"model": "no-such-canary", "prompt": "canary"}
            assert (await server.client.post(PATH, json=body)).status_code == 401
            headers = server.login(Tenant(name="acme"))
            assert (await server.client.post(PATH, json=body, headers=headers)).status_code == 404
            text = render_metrics(server.admission.counts.families()).decode()
            assert 'tenant="tests"' not in text
            assert "canary" not in text
            assert samples(text)['tenant_refusals_total{reason="model_not_found",tenant="acme"}']

    run(test)


def test_of_many_tenants_only_the_first_have_a_name() -> None:
    counts = TenantCounts()
    for i in range(3 * MAX_TENANTS):
        for _ in range(2):
            counts.ask(f"t{i}")
            counts.refuse(f"t{i}", "overloaded")
            counts.use(f"t{i}", 5)
    requests, refusals, tokens = (family.samples for family in counts.families())
    assert len(requests) == len(tokens) == MAX_TENANTS + 1
    assert requests[OTHER_TENANTS,] == 2 * 2 * MAX_TENANTS
    assert refusals[OTHER_TENANTS, "overloaded"] == 2 * 2 * MAX_TENANTS
    assert tokens[OTHER_TENANTS,] == 5 * 2 * 2 * MAX_TENANTS
    assert sum(requests.values()) == 2 * 3 * MAX_TENANTS
    assert refusals["t0", "rate_limit_exceeded"] == 0
