"""The server API's description (OpenAPI 3.1), made from its types."""

from functools import cache
from typing import Any

import msgspec

from yelpaze.live.server_api.api import METHODS
from yelpaze.version import __version__

_ERROR = {
    "type": "object",
    "properties": {"error": {"$ref": "#/components/schemas/Error"}},
    "required": ["error"],
}


def _hook(kind: type) -> dict[str, Any]:
    if kind is msgspec.Raw:
        return {}  # any JSON value
    raise NotImplementedError(kind)


@cache
def schema() -> dict[str, Any]:
    """All methods, what they take and what they give."""
    requests = {name: method.request for name, method in METHODS.items()}
    results = {name: method.result for name, method in METHODS.items() if method.result is not None}
    kinds = [*requests.values(), *results.values()]
    found, components = _public(
        msgspec.json.schema_components(kinds, schema_hook=_hook, ref_template="#/components/schemas/{name}")
    )
    takes = dict(zip(requests, found[: len(requests)], strict=True))
    gives = dict(zip(results, found[len(requests) :], strict=True))
    components["Error"] = {
        "type": "object",
        "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
        "required": ["code", "message"],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Yelpaze live: server API", "version": __version__},
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
        "security": [{"key": []}],
        "paths": {
            f"/api/{name}": {
                "post": _method(
                    name, takes[name], gives.get(name), needs_body=_needs_any(takes[name], components)
                )
            }
            for name in takes
        },
    }


def _public(made: Any) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Types under names without the underscore that they have here."""
    text = msgspec.json.encode(made).replace(b"/schemas/_", b"/schemas/")
    found, components = msgspec.json.decode(text)
    named = {name.removeprefix("_"): component for name, component in components.items()}
    return found, {name: {**component, "title": name} for name, component in named.items()}


def _needs_any(takes: dict[str, Any], components: dict[str, Any]) -> bool:
    """Whether there is anything that must be given; if not, there need be no body."""
    return bool(components[takes["$ref"].rpartition("/")[2]]["required"])


def _method(
    name: str, takes: dict[str, Any], gives: dict[str, Any] | None, *, needs_body: bool
) -> dict[str, Any]:
    result = {"type": "object", "properties": {"result": gives}, "required": ["result"]} if gives else {}
    answer = {"oneOf": [result, _ERROR]} if gives else {"type": "object"}
    refused = {"description": "the request makes no sense", "content": _json(_ERROR)}
    return {
        "operationId": name,
        "requestBody": {"required": needs_body, "content": _json(takes)},
        "responses": {
            "200": {"description": "done, or refused with an error", "content": _json(answer)},
            "400": refused,
            "401": {"description": "the key is missing or wrong", "content": _json(_ERROR)},
            "413": {"description": "too large", "content": _json(_ERROR)},
        },
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
