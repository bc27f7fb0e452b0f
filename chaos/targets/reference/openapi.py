"""The contract: OpenAPI 3.1 of every route, by hand. tests/unit/test_reference_app.py holds it against the routes and the answers."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]  # an OpenAPI document is JSON

_PROBLEM: Document = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {"type": "string", "pattern": "^[a-z_]+$"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_ITEM: Document = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "name", "created_at"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "name": {"type": "string"},
        "created_at": {"type": "string", "format": "date-time"},
    },
}
_NEW_ITEM: Document = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 200, "description": "Printable characters."},
        "email": {"type": ["string", "null"], "maxLength": 254, "description": "Kept, never shown."},
    },
}
_ITEMS: Document = {
    "type": "object",
    "additionalProperties": False,
    "required": ["items"],
    "properties": {"items": {"type": "array", "maxItems": 100, "items": {"$ref": "#/components/schemas/Item"}}},
}
_HEALTH: Document = {"type": "object", "required": ["status", "release"], "properties": {"status": {"type": "string"}}}
_ID: Document = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
}
_NAME: Document = {"name": "name", "in": "query", "schema": {"type": "string", "minLength": 1, "maxLength": 200}}
_LIMIT: Document = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}}
_KEY: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 8, "maxLength": 200, "pattern": "^[!-~]+$"},
    "description": "The same key and the same body are applied once, however often they are sent.",
}
_TITLES = {
    400: "Malformed, or a host that is not served",
    401: "The API key is missing or wrong",
    404: "Not found",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "The fields are wrong, or the key belongs to another request",
    500: "A mistake of the service",
    503: "The database cannot answer now; see Retry-After",
}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(name: str, summary: str, schema: str, *problems: int, status: int = 200, **more: Any) -> Document:
    """One operation: its good answer, and the problems it can end in. Any: OpenAPI fields, passed through."""
    responses: Document = {str(status): {"description": summary, "content": {"application/json": {"schema": _ref(schema)}}}}
    for problem in (400, *problems, 500):
        content = {"application/problem+json": {"schema": _ref("Problem")}}
        responses[str(problem)] = {"description": _TITLES[problem], "content": content}
    if "503" in responses:
        responses["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return {"operationId": name, "summary": summary, "responses": responses, **more}


def _items(prefix: str, guard: tuple[int, ...], **more: Any) -> dict[str, Document]:
    """The item endpoints below a prefix. Any: OpenAPI fields, passed through."""
    tag = "provider" if guard else "api"
    body = {"required": True, "content": {"application/json": {"schema": _ref("NewItem")}}}
    return {
        f"{prefix}/items": {
            "get": _operation(f"{tag}ListItems", "Items, newest first", "Items", *guard, 503, parameters=[_NAME, _LIMIT], **more),
            "post": _operation(
                f"{tag}CreateItem",
                "The item, committed",
                "Item",
                *guard,
                *(408, 413, 415, 422, 503),
                status=201,
                parameters=[_KEY],
                requestBody=body,
                **more,
            ),
        },
        f"{prefix}/items/{{id}}": {
            "get": _operation(f"{tag}GetItem", "One item", "Item", *guard, 404, 503, parameters=[_ID], **more),
        },
    }


def document(release: str) -> Document:
    """The whole document. It names no server: the service does not know, and never asks Host, under which name it is reached."""
    metrics = {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Reference service", "version": release},
        "paths": {
            **_items("/api", ()),
            **_items("/provider/v1", (401,), security=[{"ApiKey": []}]),
            "/healthz": {"get": _operation("alive", "The process is up", "Health")},
            "/readyz": {"get": _operation("ready", "It can serve", "Health", 503)},
            "/metrics": {"get": {"operationId": "metrics", "summary": "Metrics", "responses": {"200": metrics}}},
            "/openapi.json": {"get": _operation("contract", "This document", "Contract")},
        },
        "components": {
            "schemas": {
                "Item": _ITEM,
                "Items": _ITEMS,
                "NewItem": _NEW_ITEM,
                "Problem": _PROBLEM,
                "Health": _HEALTH,
                "Contract": {"type": "object"},
            },
            "securitySchemes": {"ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
    }
