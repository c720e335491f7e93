"""The description of the REST API: OpenAPI 3.1, from the declarations of the tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mcp_server import __version__
from mcp_server.tools.catalog import Tool
from mcp_server.transports.errors import ERRORS

__all__ = ["openapi"]

_JSON = "application/json"
_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "integer"}

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": _TEXT,
        "status": _NUMBER,
        "detail": _TEXT,
        "instance": {"type": "string", "format": "uri"},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"enum": sorted({kind.code for kind in ERRORS} | {"invalid_token"})},
                "message": _TEXT,
                "retryable": {"type": "boolean"},
                "request_id": _TEXT,
                "retry_after_ms": _NUMBER,
                "reasons": {"type": "array", "items": {"type": "object"}},
            },
        },
    },
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A change that is sent again with the same key is made once. Valid for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_QUOTA = {
    name: {"description": text, "schema": _TEXT}
    for name, text in (
        ("RateLimit", "What is left of each rate limit (draft-ietf-httpapi-ratelimit-headers)."),
        ("RateLimit-Policy", "The rate limits of the call."),
    )
}


def openapi(tools: Iterable[Tool[Any, Any]], server: str | None = None) -> dict[str, Any]:
    """Return the OpenAPI document of the REST API.

    Args:
        tools: each has a path of its own.
        server: origin of the server; None: the origin that the document is read from.
    """
    tools = tuple(tools)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Enterprise MCP: REST API",
            "version": __version__,
            "description": "The tools and resources of the server, for clients that do not speak MCP.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server or "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name} for name in ("tools", "resources", "caller", "health")],
        "paths": {
            "/tools": _get("tools", "listTools", "List the tools that you may see", _TOOLS),
            **{f"/tools/{tool.wire_name}/execute": _execute(tool) for tool in tools},
            "/resources": _get(
                "resources", "listResources", "List the resources that you may see", _RESOURCES
            ),
            "/resources/read": _get(
                "resources",
                "readResource",
                "Read a resource",
                _READING,
                statuses=(422,),
                parameters=[
                    {
                        "name": "uri",
                        "in": "query",
                        "required": True,
                        "description": "URI of the resource, such as enterprise://policy/me.",
                        "schema": _TEXT,
                        "example": "enterprise://policy/me",
                    }
                ],
            ),
            "/me": _get(
                "caller",
                "getMe",
                "Your roles, what is available to you, and what is left of your rate limits",
                _ME,
                statuses=(422,),
            ),
            "/openapi.json": _get(
                "caller", "getOpenapi", "This document, with the tools that you may see", _OBJECT
            ),
            "/health": _health("getHealth", "The state of the node", {}),
            "/health/live": _health("getLive", "Whether the process runs", {}),
            "/health/ready": _health(
                "getReady",
                "Whether the node accepts calls",
                {"503": {"description": "It does not.", "content": _content(_OBJECT)}},
            ),
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _PROBLEM, **_definitions(tools)},
            "responses": {str(status): _failure(status) for status in _STATUSES},
        },
    }


_STATUSES = sorted({kind.status for kind in ERRORS})
_OBJECT: dict[str, Any] = {"type": "object"}


def _object(required: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_TOOLS = _object(
    {
        "tools": _list(
            _object(
                {
                    **dict.fromkeys(("name", "title", "description"), _TEXT),
                    **dict.fromkeys(("input_schema", "output_schema"), _OBJECT),
                    "read_only": {"type": "boolean"},
                }
            )
        )
    }
)
_DESCRIBED = dict.fromkeys(("name", "title", "description", "mime_type"), _TEXT)
_RESOURCES = _object(
    {
        "resources": _list(_object({"uri": _TEXT, **_DESCRIBED})),
        "resource_templates": _list(_object({"uri_template": _TEXT, **_DESCRIBED})),
    }
)
_READING = _object(dict.fromkeys(("uri", "mime_type", "text", "request_id"), _TEXT))
_ME = _object(
    {
        **dict.fromkeys(("user", "tenant", "policy_revision"), _TEXT),
        "roles": _list(_TEXT),
        "tools": _list(_OBJECT),
        "resources": _list(_TEXT),
        "prompts": _list(_TEXT),
        "limits": _list(
            _object(
                {
                    "id": _TEXT,
                    **dict.fromkeys(("limit", "remaining", "window_s", "reset_ms"), _NUMBER),
                }
            )
        ),
    }
)


def _content(schema: Mapping[str, Any], media_type: str = _JSON) -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _failure(status: int) -> dict[str, Any]:
    meanings = [f"`{kind.code}`: {kind.meaning}" for kind in ERRORS if kind.status == status]
    return {
        "description": "; ".join(dict.fromkeys(meanings)),
        "content": _content({"$ref": "#/components/schemas/Problem"}, "application/problem+json"),
    }


def _failures(*statuses: int) -> dict[str, Any]:
    # Every route needs a token (429: too many bad ones) and a decision, takes no unknown query
    # parameter, and may be refused by a node that is busy or stopping.
    common = (400, 401, 403, 405, 429, 500, 502, 503)
    return {
        str(status): {"$ref": f"#/components/responses/{status}"}
        for status in sorted({*common, *statuses})
    }


def _get(
    tag: str,
    name: str,
    summary: str,
    schema: Mapping[str, Any],
    *,
    statuses: tuple[int, ...] = (),
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "get": {
            "tags": [tag],
            "operationId": name,
            "summary": summary,
            **({"parameters": parameters} if parameters else {}),
            "responses": {
                "200": {"description": "OK", "content": _content(schema)},
                **_failures(*statuses),
            },
        }
    }


def _health(name: str, summary: str, more: Mapping[str, Any]) -> dict[str, Any]:
    answer = _object({"status": _TEXT})
    return {
        "get": {
            "tags": ["health"],
            "operationId": name,
            "summary": summary,
            "security": [],
            "responses": {"200": {"description": "OK", "content": _content(answer)}, **more},
        }
    }


def _execute(tool: Tool[Any, Any]) -> dict[str, Any]:
    # The policy may mask any field, and `fields` selects fields: no field of a result is certain.
    result = _object({"result": _OBJECT, "text": _TEXT, "request_id": _TEXT})
    operation: dict[str, Any] = {
        "tags": ["tools"],
        "operationId": tool.wire_name,
        "summary": tool.title,
        "description": tool.description,
        "requestBody": {
            "required": True,
            "content": _content(_arguments(tool)),
        },
        "responses": {
            "200": {
                "description": "The result, described by output_schema of GET /tools.",
                "headers": _QUOTA,
                "content": _content(result),
            },
            **_failures(413, 415, 422),
        },
    }
    if not tool.read_only:
        operation["parameters"] = [_KEY]
        operation["responses"].update(_failures(409))
    return {"post": operation}


def _arguments(tool: Tool[Any, Any]) -> dict[str, Any]:
    schema = tool.arguments.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    required = schema.get("required", [])
    # null for an optional argument means that it is not set.
    properties = {
        name: argument if name in required else _or_null(argument)
        for name, argument in schema.get("properties", {}).items()
    }
    return {
        **schema,
        "properties": properties,
        "description": f"Arguments of {tool.wire_name}.",
    }


def _or_null(argument: dict[str, Any]) -> dict[str, Any]:
    null = {"type": "null"}
    return argument if null in argument.get("anyOf", ()) else {"anyOf": [argument, null]}


def _definitions(tools: Iterable[Tool[Any, Any]]) -> dict[str, Any]:
    """Return the definitions that the arguments refer to."""
    found: dict[str, Any] = {}
    for tool in tools:
        schema = tool.arguments.model_json_schema(ref_template="#/components/schemas/{model}")
        for name, definition in schema.get("$defs", {}).items():
            if found.setdefault(name, definition) != definition:
                raise TypeError(f"two tools have arguments of different types named {name}")
    return found
