"""The REST API: the same tools for callers that do not speak MCP."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from mcp_server.gate import (
    Answer,
    Call,
    Caller,
    Gate,
    InternalError,
    Limited,
    NodeUnavailable,
    Refused,
    ToolAnswer,
    call_tool,
)
from mcp_server.gate.resource_reads import Resources
from mcp_server.policy import Obligations, Quota, Resource, Visible
from mcp_server.tools.catalog import InvalidArguments
from mcp_server.transports import errors
from mcp_server.transports.errors import ErrorKind, kind_of, refusal_details
from mcp_server.transports.http_guard import RETRY_AFTER_S, RequestState

__all__ = ["RestApi", "wrong_path"]

_NAMES_SHOWN = 5
_PATHS = (
    "POST /mcp, GET /tools, POST /tools/{name}/execute, GET /resources, POST /auth/token "
    "and GET /health"
)


class RestApi:
    """`GET /tools`, `POST /tools/{name}/execute` and `GET /resources`.

    Every response is JSON. Errors are `{"error": {"code", "message", ...}}` with a row of
    `mcp_server.transports.errors.ERRORS`. A rate limit (429) comes with Retry-After, RateLimit and
    RateLimit-Policy.
    """

    def __init__(self, gate: Gate, resources: Resources) -> None:
        self._gate = gate
        self._resources = resources
        self.app = Router(
            [
                self._route(
                    "GET", "/tools", self._list_tools, "it lists all tools that you may see"
                ),
                self._route(
                    "POST",
                    "/tools/{name}/execute",
                    self._execute,
                    "arguments of the tool are a JSON object in the body",
                ),
                self._route(
                    "GET",
                    "/resources",
                    self._list_resources,
                    "it lists all that you may see; reading one is for MCP only (resources/read)",
                ),
            ],
            redirect_slashes=False,  # a redirect has no body that says why
        )

    def _route(
        self, method: str, path: str, answer: Callable[[Request], Awaitable[Response]], instead: str
    ) -> Route:
        """Return a route that refuses query parameters by name and says what to use instead."""

        async def answer_without_query(request: Request) -> Response:
            # The path is decoded before it is routed. An encoded slash is part of a name (RFC 3986
            # section 2.2), and no tool has one in its name. A gateway that compares paths would see
            # another path than this server.
            if b"%2f" in request.scope.get("raw_path", b"").lower():
                raise HTTPException(HTTPStatus.NOT_FOUND)
            names = list(request.query_params)
            if not names:
                return await self._without_details(request, answer)
            shown = ", ".join(json.dumps(name[:64]) for name in names[:_NAMES_SHOWN])
            more = " and others" if len(names) > _NAMES_SHOWN else ""
            text = f"unknown query parameters: {shown}{more}; this path takes none: {instead}"
            return _error(errors.INVALID_REQUEST, text)

        return Route(path, answer_without_query, methods=[method])

    async def _without_details(
        self, request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Keep the message of an unforeseen error, raised here or in the gate, from the client."""
        try:
            return await answer(request)
        except Exception as error:  # noqa: BLE001 - the last handler before the client
            caller = RequestState.of(request.scope).caller
            if not isinstance(error, InternalError):
                error = self._gate.internal_error(
                    caller, f"{request.method} {request.url.path}", error
                )
            return _error(
                errors.INTERNAL_ERROR, str(error), retryable=False, request_id=caller.request_id
            )

    async def _list_tools(self, request: Request) -> Response:
        visible = await self._visible(request, "tools/list")
        if isinstance(visible, Response):
            return visible
        return JSONResponse(
            {
                "tools": [
                    {
                        "name": tool.wire_name,
                        "title": tool.title,
                        "description": tool.description,
                        "input_schema": tool.input_schema,
                        "output_schema": tool.result_schema,
                        "read_only": tool.read_only,
                    }
                    for tool in self._gate.catalog
                    if tool.name in visible.tools
                ]
            },
            headers={"Cache-Control": "private, no-cache"},
        )

    async def _list_resources(self, request: Request) -> Response:
        visible = await self._visible(request, "resources/list")
        if isinstance(visible, Response):
            return visible
        return JSONResponse(
            {
                "resources": [
                    {
                        "uri": resource.uri,
                        "name": resource.name,
                        "title": resource.title,
                        "description": resource.description,
                        "mime_type": resource.mime_type,
                    }
                    for resource in self._resources
                    if resource.uri in visible.resources and not resource.parameters
                ],
                "resource_templates": [
                    {
                        "uri_template": template.uri,
                        "name": template.name,
                        "title": template.title,
                        "description": template.description,
                        "mime_type": template.mime_type,
                    }
                    for template in self._resources
                    if template.uri in visible.resources and template.parameters
                ],
            },
            headers={"Cache-Control": "private, no-cache"},
        )

    async def _visible(self, request: Request, method: str) -> Visible | Response:
        state = RequestState.of(request.scope)

        async def work(_: Obligations) -> Visible:
            return await self._gate.visible(state.caller, method)

        try:
            call = Call(method, Resource("server", "enterprise-mcp"))
            return (await self._gate.perform(state.caller, call, work)).value
        except Refused as refusal:
            return _refused(refusal, state)

    async def _execute(self, request: Request) -> Response:
        state = RequestState.of(request.scope)
        arguments = state.body
        if isinstance(arguments, dict) and set(arguments) == {"arguments"}:
            # As over MCP, where `arguments` may be null (tools/call).
            arguments = {} if arguments["arguments"] is None else arguments["arguments"]
        if not isinstance(arguments, dict):
            return _error(errors.INVALID_REQUEST, "the body must be an object of arguments")
        try:
            answer = await call_tool(
                self._gate, state.caller, request.path_params["name"], arguments
            )
        except InvalidArguments as error:
            return _error(errors.INVALID_ARGUMENTS, str(error))
        except Refused as refusal:
            return _refused(refusal, state)
        return _executed(answer, state.caller)


def wrong_path(
    paths: str = _PATHS,
) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return a handler for a path or a method without a route, which responds like all errors.

    Args:
        paths: the existing paths, in words.
    """

    async def answer(_: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # The framework lists them in the order of a set, which differs from process to process.
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            text = f"this path takes {allowed}"
            return _error(errors.METHOD_NOT_ALLOWED, text, {"Allow": allowed})
        text = f"{error.detail}; what there is: {paths}"
        return _error(errors.NOT_FOUND, text, error.headers)

    return answer


def _executed(answer: Answer[ToolAnswer], caller: Caller) -> Response:
    result = answer.value
    headers = _quota_headers(answer.quota)
    if result.is_error:
        kind = errors.TOOL_UNAVAILABLE if result.retryable else errors.TOOL_ERROR
        return _error(kind, result.text, headers, retryable=result.retryable)
    return JSONResponse(
        {"result": result.structured, "text": result.text, "request_id": caller.request_id},
        headers=headers,
    )


def _refused(refusal: Refused, state: RequestState) -> Response:
    headers: dict[str, str] = {}
    state.refusal = refusal  # the HTTP guard adds what clients and the load balancer look at
    match refusal:
        case Limited():
            headers = _quota_headers(refusal.quota)
            headers["Retry-After"] = str(max(math.ceil(refusal.retry_after_ms / 1000), 1))
        case Refused(retryable=True) if not isinstance(refusal, NodeUnavailable):
            headers = {"Retry-After": str(RETRY_AFTER_S)}
    return _error(
        kind_of(refusal),
        str(refusal),
        headers,
        **refusal_details(refusal),
        request_id=state.caller.request_id,
    )


def _error(
    kind: ErrorKind, message: str, headers: Mapping[str, str] | None = None, **details: Any
) -> Response:
    body = {"error": {"code": kind.code, "message": message, **details}}
    return JSONResponse(body, status_code=kind.status, headers=dict(headers or {}))


def _quota_headers(quota: tuple[Quota, ...]) -> dict[str, str]:
    """Return the fields of draft-ietf-httpapi-ratelimit-headers for the rate limits of a call."""
    if not quota:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{q.id}";q={q.limit};w={q.window_s}' for q in quota),
        "RateLimit": ", ".join(
            f'"{q.id}";r={q.remaining};t={math.ceil(q.reset_ms / 1000)}' for q in quota
        ),
    }
