"""`/v1/drafters`: which there are and how they are; added, enabled, disabled and removed live.

A change is answered 202 once the store has it; targets and hosts have it about a second later, or
when the drafter is loaded, and its state says so.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cluster.config import DrafterSection
from cluster.drafter_changes import (
    AddDrafter,
    DrafterChange,
    DrafterChangeError,
    EnableDrafter,
    RemoveDrafter,
)
from deployments.drafter_list import describe_drafter, list_drafters
from deployments.entrance import operators_only
from deployments.errors import ApiError
from deployments.gateway import Gateway
from deployments.json_body import read_json
from deployments.openai_schema import Body, parse_body, refused
from deployments.target_client import CONTROL_TIMEOUT_S

_STATUSES = {"unknown": 404, "conflict": 409, "invalid": 400}
_CODES = {"unknown": "drafter_not_found", "conflict": "conflict", "invalid": "invalid_value"}


class EnabledBody(Body):
    """`PATCH /v1/drafters/{name}`."""

    enabled: bool


class DrafterRoutes:
    """The endpoints, on `gateway`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def list(self, request: Request) -> Response:
        counters = await self._gateway.counters()
        return JSONResponse({"object": "list", "data": list_drafters(counters)})

    async def add(self, request: Request) -> Response:
        try:
            section = DrafterSection.model_validate(await self._body(request))
        except ValidationError as error:
            raise refused(error) from error
        return await self._change(AddDrafter(section), section.name)

    async def enable(self, request: Request) -> Response:
        body = parse_body(EnabledBody, await self._body(request))
        name = request.path_params["name"]
        return await self._change(EnableDrafter(name, body.enabled), name)

    async def remove(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._send(RemoveDrafter(name))
        return JSONResponse({"id": name, "object": "drafter", "deleted": True}, status_code=202)

    async def _body(self, request: Request) -> dict[str, Any]:
        return await read_json(request, self._gateway.limits)

    async def _change(self, change: DrafterChange, name: str) -> Response:
        await self._send(change)
        counters = await self._gateway.counters()
        return JSONResponse(describe_drafter(name, counters), status_code=202)

    async def _send(self, change: DrafterChange) -> None:
        """Raises ApiError for what is not done."""
        try:
            sent = self._gateway.target.change_drafters(change)
            wrong = await asyncio.wait_for(sent, CONTROL_TIMEOUT_S)
        except Exception as error:
            message = "the model is not loaded yet"
            raise ApiError(503, message, None, "not_ready", retry_after_s=1) from error
        if isinstance(wrong, DrafterChangeError):
            status, code = _STATUSES[wrong.kind], _CODES[wrong.kind]
            raise ApiError(status, wrong.message, wrong.field, code)
        if wrong is not None:
            raise ApiError(503, wrong.message, None, "no_store", retry_after_s=5)


def add_drafter_routes(app: FastAPI, gateway: Gateway) -> None:
    routes = DrafterRoutes(gateway)
    for path, method, endpoint in (
        ("/v1/drafters", "GET", routes.list),
        ("/v1/drafters", "POST", routes.add),
        ("/v1/drafters/{name}", "PATCH", routes.enable),
        ("/v1/drafters/{name}", "DELETE", routes.remove),
    ):
        app.add_route(path, operators_only(endpoint), methods=[method])
