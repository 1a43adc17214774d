"""What every request passes before any route: bounded headers, and a known API key.

Closed by default: `OPEN` alone needs no key, and routes are for operators unless they say more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.tenants.tenant import Tenant
from deployments.authentication import Authentication
from deployments.errors import ApiError

OPEN = "/health"
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_TARGET_BYTES = 2048
Endpoint = Callable[[Request], Awaitable[Response]]
_SCOPE_KEY = "hedgerow.tenant"


class Entrance:
    """ASGI middleware around the routes."""

    def __init__(self, app: ASGIApp, authentication: Authentication) -> None:
        self._app = app
        self._authentication = authentication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            _check_bounds(scope)
            if _path(scope) != OPEN:
                tenant = await self._authentication.tenant_of(scope["headers"])
                scope = {**scope, _SCOPE_KEY: tenant}
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def tenant_of(request: Request) -> Tenant:
    tenant: Tenant = request.scope[_SCOPE_KEY]
    return tenant


def operators_only(endpoint: Endpoint) -> Endpoint:
    async def guarded(request: Request) -> Response:
        if not tenant_of(request).is_operator:
            raise ApiError(403, "only an operator's API key may do this", None, "not_permitted")
        return await endpoint(request)

    return guarded


def error_response(error: ApiError) -> Response:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def _path(scope: Scope) -> str:
    """Below the root path, as the routes see it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _check_bounds(scope: Scope) -> None:
    """Ray's proxy bounds no header."""
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        message = f"more than {MAX_HEADERS} headers, or than {MAX_HEADER_BYTES} bytes of them"
        raise ApiError(431, message, None, "headers_too_large")
    if len(scope["path"]) + len(scope.get("query_string", b"")) > MAX_TARGET_BYTES:
        message = f"the path and query are longer than {MAX_TARGET_BYTES} bytes"
        raise ApiError(414, message, None, "path_too_long")
