"""Drafters added, enabled, disabled and removed over HTTP; what cannot be is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from http_calls import run

NEW = {"name": "new", "kind": "suffix", "max_draft_length": 4}


def test_a_drafter_is_added_disabled_enabled_and_removed(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            added = await server.client.post("/v1/drafters", json=NEW)
            assert added.status_code == 202
            assert added.json()["id"] == "new"
            assert added.json()["states"] == ["failed"] * 2
            assert added.json()["reasons"] == ["no such folder"]
            assert [each.name for each in server.target.changes.added] == ["new"]
            for enabled, disabled in ((False, ("new",)), (True, ())):
                body = {"enabled": enabled}
                answer = await server.client.patch("/v1/drafters/new", json=body)
                assert answer.status_code == 202
                assert server.target.changes.disabled == disabled
            gone = await server.client.delete("/v1/drafters/new")
            assert (gone.status_code, gone.json()["deleted"]) == (202, True)
            assert server.target.changes.removed == ("new",)
            assert server.target.changes.version == 4

    run(test)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "parameter", "message"),
    [
        ("POST", "", NEW | {"name": "far"}, 409, "name", "'far' is the name"),
        ("POST", "", NEW | {"host": "moon"}, 400, "host", "'moon'"),
        ("POST", "", NEW | {"length": 4}, 400, "length", "unknown"),
        ("POST", "", NEW | {"max_draft_length": "4"}, 400, "max_draft_length", "integer"),
        ("POST", "", NEW | {"kind": "clairvoyant"}, 400, "kind", "prompt_lookup"),
        ("POST", "", NEW | {"kind": "model"}, 400, None, "needs one of the keys"),
        ("POST", "", {"kind": "suffix"}, 400, "name", "missing"),
        ("PATCH", "/nobody", {"enabled": True}, 404, None, "'nobody' is no drafter"),
        ("PATCH", "/far", {"enabled": 1}, 400, "enabled", "boolean"),
        ("PATCH", "/far", {}, 400, "enabled", "missing"),
        ("DELETE", "/nobody", None, 404, None, "there are: lookup, far"),
        ("PUT", "/far", {}, 405, None, "PUT /v1/drafters/far"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(
    serving: Any,
    method: str,
    path: str,
    body: object,
    status: int,
    parameter: str | None,
    message: str,
) -> None:
    async def test() -> None:
        async with serving() as server:
            answer = await server.client.request(method, f"/v1/drafters{path}", json=body)
            assert answer.status_code == status, answer.text
            error = answer.json()["error"]
            assert error["param"] == parameter
            assert message in error["message"]
            assert server.target.changes.version == 0

    run(test)


def test_without_a_store_nothing_is_promised(serving: Any) -> None:
    async def test() -> None:
        async with serving() as server:
            server.target.has_store = False
            answer = await server.client.post("/v1/drafters", json=NEW)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "no_store"
            assert answer.headers["retry-after"]

    run(test)
