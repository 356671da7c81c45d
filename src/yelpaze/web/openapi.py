"""The OpenAPI description: FastAPI's, with the schemas of our structs."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_ERROR = {
    "type": "object",
    "required": ["code", "detail"],
    "properties": {"code": {"type": "string"}, "detail": {"type": "string"}},
}
_INVALID = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": "string"}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        }
    },
}
_STATUSES = {
    "400": "The request is wrong.",
    "401": "The token is missing, or opens nothing.",
    "403": "The token is for one application only.",
    "404": "There is no such thing, or it is not the caller's.",
    "409": "Another thing has that name.",
    "413": "The body is too large.",
    "422": "A field is wrong.",
    "429": "Too many deliveries wait.",
    "503": "The store cannot be used now.",
}


def reference(name: str) -> dict[str, str]:
    """A reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def described(
    answer: type | None,
    *,
    status: int = 200,
    body: type | None = None,
    page_of: type | None = None,
    or_status: int | None = None,
) -> dict[str, Any]:
    """Describe an operation's body and answers, for `openapi_extra`."""
    responses: dict[str, Any] = {
        code: {"description": text, "content": _json("HTTPValidationError" if code == "422" else "HttpError")}
        for code, text in _STATUSES.items()
    }
    name = f"ListResponse{page_of.__name__}" if page_of is not None else answer and answer.__name__
    done: dict[str, Any] = {"description": "It is done."}
    if name:
        done["content"] = _json(name)
    for one in (status, or_status):
        if one is not None:
            responses[str(one)] = done
    found: dict[str, Any] = {"responses": responses}
    if body is not None:
        found["requestBody"] = {"required": True, "content": _json(body.__name__)}
    return found


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": reference(name)}}


def describe(app: FastAPI, structs: Sequence[type], pages: Sequence[type]) -> None:
    """Let the application describe itself with these structs, and lists of `pages`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, components = msgspec.json.schema_components(
                structs, ref_template="#/components/schemas/{name}"
            )
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas.update({name: _with_objects(one) for name, one in components.items()})
            schemas.update({f"ListResponse{page.__name__}": _page(page.__name__) for page in pages})
            schemas["HttpError"], schemas["HTTPValidationError"] = _ERROR, _INVALID
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _with_objects(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A payload is raw JSON for msgspec, and an object for callers."""
    found = dict(schema)
    properties = dict(found.get("properties", {}))
    if "payload" in properties:
        properties["payload"] = {"type": "object"}
        found["properties"] = properties
    return found


def _page(name: str) -> dict[str, Any]:
    text = {"type": ["string", "null"]}
    return {
        "type": "object",
        "required": ["data", "iterator", "prevIterator", "done"],
        "properties": {
            "data": {"type": "array", "items": reference(name)},
            "iterator": text,
            "prevIterator": text,
            "done": {"type": "boolean"},
        },
    }
