"""The OpenAPI document: what is served, made from the bodies' own types."""

from __future__ import annotations

from typing import Any

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
    schemas: Json = {"Error": _ERROR, "Model": _MODEL}
    bodies: tuple[tuple[str, type[GenerationBody]], ...] = (
        ("/v1/chat/completions", ChatBody),
        ("/v1/completions", CompletionBody),
    )
    paths: Json = {path: {"post": _generation(body, card, schemas)} for path, body in bodies}
    models = {"type": "object", "required": ["object", "data"]}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    paths |= {
        "/v1/models": {"get": _get("The model that is served.", models)},
        "/v1/models/{name}": {"get": _get("One model.", _reference("Model"), [name])},
        "/v1/drafters": {"get": _get("Every drafter; for operators.", models)},
        "/health": {"get": {**_get("Whether it can answer.", {"type": "object"}), "security": []}},
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
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _reference(body.__name__)}},
        },
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


def _get(summary: str, schema: Json, parameters: list[Json] | None = None) -> Json:
    content = {"application/json": {"schema": schema}}
    return {
        "summary": summary,
        "parameters": parameters or [],
        "responses": {
            "200": {"description": summary, "content": content},
            "default": _REFUSAL,
        },
    }


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
_REFUSAL: Json = {
    "description": "What is wrong, as OpenAI words it.",
    "content": {"application/json": {"schema": _reference("Error")}},
}
