"""The OpenAPI document: what is served, made from the bodies' own types."""

from __future__ import annotations

from typing import Any

from cluster.config import DrafterSection
from deployments.drafter_routes import EnabledBody
from deployments.model_card import ModelCard
from deployments.openai_schema import ChatBody, CompletionBody, GenerationBody
from engine.request import MAX_LOGPROBS

Json = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "min_p": (0, 1),
    "top_k": (0, 2**31),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0.01, 100),
    "min_tokens": (0, 2**31),
    "logprobs": (0, MAX_LOGPROBS),
}
"""Of what the engine checks; a test compares."""


def openapi_document(card: ModelCard) -> Json:
    """For the model that `card` describes: no other name of a model is in it."""
    schemas: Json = {"Error": _ERROR, "Model": _MODEL, "Drafter": _DRAFTER, "Selector": _SELECTOR}
    bodies: tuple[tuple[str, type[GenerationBody]], ...] = (
        ("/v1/chat/completions", ChatBody),
        ("/v1/completions", CompletionBody),
    )
    paths: Json = {path: {"post": _generation(body, card, schemas)} for path, body in bodies}
    model = {"get": _get("One model.", _reference("Model")), "parameters": [_NAME]}
    paths |= {
        "/v1/models": {"get": _get("The model that is served.", _list_of("Model"))},
        "/v1/models/{name}": model,
        "/health": {"get": {**_get("Whether it can answer.", {"type": "object"}), "security": []}},
        **_operators(),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hedgerow", "version": "1"},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _generation(body: type[GenerationBody], card: ModelCard, schemas: Json) -> Json:
    schema = body.model_json_schema(ref_template=_REFERENCE)
    schemas.update(schema.pop("$defs", {}))
    properties: Json = schema["properties"]
    properties["model"] = {"type": "string", "enum": [card.model]}
    for name, (low, high) in RANGES.items():
        for form in properties.get(name, {}).get("anyOf", ()):
            if form["type"] in ("number", "integer"):
                form.update(minimum=low, maximum=high)
    for form in properties["top_p"]["anyOf"]:
        if form["type"] == "number":
            form.update(exclusiveMinimum=0, maximum=1)
    schemas[body.__name__] = schema
    answer = {"type": "object", "required": ["id", "object", "created", "model", "choices"]}
    return {
        "summary": (body.__doc__ or "").strip().splitlines()[0],
        "requestBody": _body(_reference(body.__name__)),
        "responses": {
            "200": {
                "description": "The answer, or with `stream` its events.",
                "content": {
                    "application/json": {"schema": answer},
                    "text/event-stream": {"schema": {"type": "string"}},
                },
            },
            "default": _REFUSAL,
        },
    }


def _operators() -> Json:
    """Routes that want an operator's key; changes are answered once they are kept."""
    added = DrafterSection.model_json_schema(ref_template=_REFERENCE)
    enabled = EnabledBody.model_json_schema(ref_template=_REFERENCE)
    drafter = _reference("Drafter")
    gone = {"type": "object", "required": ["id", "object", "deleted"]}
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/v1/drafters": {
            "get": _get("Every drafter, and how it is.", _list_of("Drafter")),
            "post": _change("Adds a drafter.", drafter, added),
        },
        "/v1/drafters/{name}": {
            "parameters": [_NAME],
            "patch": _change("Enables or disables a drafter.", drafter, enabled),
            "delete": _change("Removes a drafter.", gone),
        },
        "/v1/selector": {"get": _get("Who chooses drafters, and how.", _reference("Selector"))},
        "/metrics": {"get": _operation("In Prometheus' format.", "200", text)},
    }


def _get(summary: str, schema: Json) -> Json:
    return _operation(summary, "200", _json(schema))


def _change(summary: str, answer: Json, body: Json | None = None) -> Json:
    found = _operation(summary, "202", _json(answer))
    return found if body is None else found | {"requestBody": _body(body)}


def _operation(summary: str, status: str, content: Json) -> Json:
    answer = {"description": summary, "content": content}
    return {"summary": summary, "responses": {status: answer, "default": _REFUSAL}}


def _body(schema: Json) -> Json:
    return {"required": True, "content": _json(schema)}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _list_of(name: str) -> Json:
    data = {"type": "array", "items": _reference(name)}
    listed = {"object": {"const": "list"}, "data": data}
    return {"type": "object", "required": ["object", "data"], "properties": listed}


def _reference(name: str) -> Json:
    return {"$ref": _REFERENCE.format(model=name)}


_TEXT_OR_NULL = {"type": ["string", "null"]}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _TEXT_OR_NULL,
                "code": _TEXT_OR_NULL,
            },
        }
    },
}
_MODEL: Json = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "max_model_len"],
}
_NAME: Json = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_COUNT: Json = {"type": "integer", "minimum": 0}
_DRAFTER: Json = {
    "type": "object",
    "required": ["id", "object", "states", "reasons", "num_failures", "num_drafts"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "drafter"},
        "states": {"type": "array", "items": {"type": "string"}},
        "reasons": {"type": "array", "items": {"type": "string"}},
        "num_failures": _COUNT,
        "num_drafts": _COUNT,
        "num_draft_tokens": _COUNT,
        "num_accepted_tokens": _COUNT,
    },
}
_SELECTOR: Json = {
    "type": "object",
    "required": ["object", "targets"],
    "properties": {
        "object": {"const": "selector"},
        "targets": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["speculation", "selectors", "shares", "regret"],
                "properties": {
                    "speculation": {"enum": ["on", "off"]},
                    "selectors": {"type": "array", "items": {"required": ["name", "settings"]}},
                    "shares": {"type": "object", "additionalProperties": {"type": "number"}},
                    "regret": {"type": "array", "items": {"required": ["drafter", "num_tokens"]}},
                },
            },
        },
    },
}
_REFUSAL: Json = {
    "description": "What is wrong, as OpenAI words it.",
    "content": {"application/json": {"schema": _reference("Error")}},
}
