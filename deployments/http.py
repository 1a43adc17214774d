"""The HTTP application: routes, error shapes, streams. Loads no torch."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import chain

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.admission import Admission
from deployments.answer import Answer, Json
from deployments.authentication import Authentication
from deployments.backpressure import Backpressure
from deployments.chat import ChatFormat
from deployments.completions import CompletionFormat
from deployments.drafter_routes import add_drafter_routes
from deployments.entrance import (
    OPEN,
    Endpoint,
    Entrance,
    error_response,
    operators_only,
    tenant_of,
)
from deployments.errors import ApiError, ClientGoneError, OverloadedError, internal, invalid
from deployments.gateway import Gateway, Rounds
from deployments.json_body import read_json
from deployments.metric_families import Family
from deployments.metrics import CONTENT_TYPE, render_metrics
from deployments.model_card import ModelCard
from deployments.openai_schema import ChatBody, CompletionBody, GenerationBody, parse_body
from deployments.openapi import openapi_document
from deployments.sse import EventStream
from engine.errors import CapacityError, InvalidRequestError
from engine.request import Emission

INVALID_VALUE = "invalid_value"
_LOG = logging.getLogger("hedgerow.http")


Fellows = Callable[[], Awaitable[list[Family]]]


class Routes:
    """The endpoints, on `gateway`, for whom `admission` lets in; `fellows` gives what is measured
    at all replicas of the ingress, None at this one alone."""

    def __init__(
        self, gateway: Gateway, admission: Admission, fellows: Fellows | None = None
    ) -> None:
        self._gateway = gateway
        self._admission = admission
        self._fellows = fellows or self._alone
        self._backpressure = Backpressure(time.monotonic, random.random)

    def counted(self, endpoint: Endpoint) -> Endpoint:
        """One for answers: what its tenants ask and why they are refused is counted."""
        counts = self._admission.counts

        async def counting(request: Request) -> Response:
            tenant = tenant_of(request).name
            counts.ask(tenant)
            try:
                return await endpoint(request)
            except ApiError as error:
                counts.refuse(tenant, error.code or str(error.status))
                raise
            except (InvalidRequestError, CapacityError):
                counts.refuse(tenant, INVALID_VALUE)
                raise

        return counting

    async def chat(self, request: Request) -> Response:
        self._check(request)
        body = parse_body(ChatBody, await read_json(request, self._gateway.limits))
        call = await self._gateway.chat_call(body, tenant_of(request))
        words = ChatFormat(self._gateway.text, bool(body.logprobs))
        return await self._answer(request, body, Answer(call, words, body.streamed_usage))

    async def completion(self, request: Request) -> Response:
        self._check(request)
        body = parse_body(CompletionBody, await read_json(request, self._gateway.limits))
        call = await self._gateway.completion_call(body, tenant_of(request))
        words = CompletionFormat(self._gateway.text, body.logprobs is not None)
        return await self._answer(request, body, Answer(call, words, body.streamed_usage))

    def _check(self, request: Request) -> None:
        """Refuses what is sure to be, before anything is read."""
        self._admission.check(tenant_of(request))
        try:
            self._backpressure.check(tenant_of(request).name)
        except OverloadedError:
            self._admission.note_refused(tenant_of(request))
            raise

    async def _answer(self, request: Request, body: GenerationBody, answer: Answer) -> Response:
        tenant, timeout_s = tenant_of(request), self._gateway.timeout_s(body)
        slow_s = self._gateway.slow_client_timeout_s
        permit = await self._admission.admit(tenant, answer.call, timeout_s + slow_s)
        try:
            started = await self._gateway.start(answer.call, request, timeout_s)
            self._backpressure.note(tenant.name, is_full=False)
        except BaseException as error:
            permit.end(answer.spent)
            if isinstance(error, OverloadedError):
                self._backpressure.note(tenant.name, is_full=True)
                self._admission.note_refused(tenant)
            raise
        rounds = PermittedRounds(started, lambda: permit.end(answer.spent))
        if body.stream:
            return EventStream(answer.events(rounds), rounds, permit.headers, slow_s)
        async with aclosing(rounds):
            async for emissions in rounds:
                answer.add(emissions)
        return JSONResponse(answer.whole(), headers=permit.headers)

    async def models(self, request: Request) -> Response:
        card = await self._gateway.card()
        return JSONResponse({"object": "list", "data": [_model(card)]})

    async def model(self, request: Request) -> Response:
        card, name = await self._gateway.card(), request.path_params["name"]
        if name != card.model:
            message = f"model: {name!r} does not exist; this server has {card.model!r}"
            raise ApiError(404, message, "model", "model_not_found")
        return JSONResponse(_model(card))

    async def selector(self, request: Request) -> Response:
        targets = await self._gateway.selectors()
        return JSONResponse({"object": "selector", "targets": targets})

    async def document(self, request: Request) -> Response:
        return JSONResponse(openapi_document(await self._gateway.card()))

    async def health(self, request: Request) -> Response:
        await self._gateway.check_ready()
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        families = await asyncio.gather(self._gateway.metrics(), self._fellows())
        return Response(render_metrics(chain(*families)), media_type=CONTENT_TYPE)

    async def _alone(self) -> list[Family]:
        return self._admission.counts.families()


def _model(card: ModelCard) -> Json:
    return {
        "id": card.model,
        "object": "model",
        "created": card.created_s,
        "owned_by": "hedgerow",
        "max_model_len": card.max_sequence_length,
    }


class PermittedRounds:
    """`rounds`, and `end` when they are closed, even if nobody has asked for the first."""

    def __init__(self, rounds: Rounds, end: Callable[[], None]) -> None:
        self._rounds = rounds
        self._end = end

    def __aiter__(self) -> PermittedRounds:
        return self

    async def __anext__(self) -> Sequence[Emission]:
        return await anext(self._rounds)

    async def aclose(self) -> None:
        self._end()
        await self._rounds.aclose()


def build_http(
    gateway: Gateway,
    authentication: Authentication,
    admission: Admission,
    fellows: Fellows | None = None,
) -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(Entrance, authentication=authentication)
    routes = Routes(gateway, admission, fellows)
    app.add_route("/v1/chat/completions", routes.counted(routes.chat), methods=["POST"])
    app.add_route("/v1/completions", routes.counted(routes.completion), methods=["POST"])
    app.add_route("/v1/models", routes.models, methods=["GET"])
    app.add_route("/v1/models/{name:path}", routes.model, methods=["GET"])
    add_drafter_routes(app, gateway)
    app.add_route("/v1/selector", operators_only(routes.selector), methods=["GET"])
    app.add_route("/openapi.json", routes.document, methods=["GET"])
    app.add_route(OPEN, routes.health, methods=["GET"])
    app.add_route("/metrics", operators_only(routes.metrics), methods=["GET"])
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(InvalidRequestError, _invalid_request)
    app.add_exception_handler(CapacityError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientGoneError, _client_gone)
    app.add_exception_handler(Exception, _unexpected)
    return app


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _invalid_request(request: Request, error: Exception) -> Response:
    parameter = error.parameter if isinstance(error, InvalidRequestError) else None
    return error_response(invalid(parameter, str(error), INVALID_VALUE))


async def _http_error(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    code = {404: "unknown_url", 405: "method_not_supported"}.get(error.status_code)
    shown = ApiError(error.status_code, message, None, code)
    return JSONResponse(shown.body, status_code=error.status_code, headers=error.headers)


async def _client_gone(request: Request, error: Exception) -> Response:
    """Nobody reads it; 499 is nginx's word for it."""
    return Response(status_code=499)


async def _unexpected(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__)
    return error_response(internal())
