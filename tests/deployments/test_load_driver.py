"""The load test's own client against the application, on a fake engine."""

from __future__ import annotations

import asyncio
from typing import Any

from running_server import running_server

from benchmarks.load import run_load
from benchmarks.load_plan import TenantLoad
from benchmarks.load_report import summary
from cluster.tenants.tenant import Tenant


def test_each_tenant_s_answers_refusals_and_goodbyes_are_told_apart(serving: Any) -> None:
    chat, duration_s = {"chat": 1.0}, 1.0
    with running_server(serving, capacity=1000) as running:

        def tenant(name: str, load: dict[str, Any], **limits: int) -> TenantLoad:
            given = Tenant.model_validate({"name": name, **limits})
            key = running.server.login(given)["Authorization"].removeprefix("Bearer ")
            return TenantLoad(name, 60.0, key, chat, max_tokens=30, **load)

        tenants = [
            tenant("whole", {"stream": 0.5}),
            tenant("limited", {}, requests_per_min=10),
            tenant("leaver", {"cancel": 1.0}),
            TenantLoad("stranger", 20.0, "hr-none", chat),
        ]
        records = asyncio.run(run_load(f"{running.url}/v1", "tiny", tenants, duration_s))
    found = summary(records, {each.name: 1.0 for each in tenants}, duration_s)["tenants"]
    whole, limited, leaver = found["whole"], found["limited"], found["leaver"]
    assert whole["num_requests"] > 30
    assert whole["num_answered"] == whole["num_requests"]
    assert whole["first_token_s"]["p50"] is not None
    assert whole["acceptance"] == 0.6
    assert 10 <= limited["num_answered"] <= 12
    assert limited["num_answered"] + limited["num_refused"] == limited["num_requests"]
    assert limited["num_without_retry_after"] == 0
    assert leaver["num_left"] > 0
    assert leaver["num_failed"] == 0
    assert found["stranger"]["reasons"] == {"401": found["stranger"]["num_requests"]}
