"""The REST API: the same tools for callers that do not speak MCP."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from mcp_server.gate import (
    Answer,
    Call,
    Failed,
    Gate,
    IdempotencyKey,
    InternalError,
    KeyConflict,
    Limited,
    NodeUnavailable,
    Refused,
    ToolAnswer,
    call_tool,
)
from mcp_server.gate.entitlements import POLICY_ME
from mcp_server.gate.resource_reads import Reading, Resources
from mcp_server.identity import Subject
from mcp_server.policy import Obligations, Quota, Resource, Visible
from mcp_server.tools.catalog import InvalidArguments
from mcp_server.transports import errors
from mcp_server.transports.errors import ErrorKind, kind_of, problem, refusal_details
from mcp_server.transports.http_guard import RETRY_AFTER_S, RequestState, request_id_of
from mcp_server.transports.openapi import openapi

__all__ = ["RestApi", "takes_body", "wrong_path"]

_NAMES_SHOWN = 5
_PATHS = (
    "POST /mcp, GET /tools, POST /tools/{name}/execute, GET /resources, GET /resources/read?uri=…, "
    "GET /me, GET /openapi.json, POST /auth/token and GET /health"
)


_PRIVATE = {"Cache-Control": "private, no-cache"}
_MAX_KEY = 255
_CONFLICTS = {
    "in_progress": errors.IDEMPOTENCY_IN_PROGRESS,
    "reused": errors.IDEMPOTENCY_KEY_REUSED,
    "unknown": errors.OUTCOME_UNKNOWN,
    "unavailable": errors.UNAVAILABLE,
}


class RestApi:
    """The routes of docs/rest.md.

    Every response is JSON. Errors are problem details (RFC 9457) with a row of
    `mcp_server.transports.errors.ERRORS`. A rate limit (429) comes with Retry-After, RateLimit and
    RateLimit-Policy.

    Args:
        public_origin: for the description of the API.
        key_of: returns the Idempotency-Key of a subject.
    """

    def __init__(
        self,
        gate: Gate,
        resources: Resources,
        *,
        public_origin: str,
        key_of: Callable[[Subject, str], IdempotencyKey],
    ) -> None:
        self._gate = gate
        self._resources = resources
        self._public_origin = public_origin
        self._key_of = key_of
        execute = "/tools/{name}/execute"
        self.app = Router(
            [
                self._route(
                    "GET", "/tools", self._list_tools, "it lists all tools that you may see"
                ),
                self._route(
                    "POST",
                    execute,
                    self._execute,
                    "arguments of the tool are a JSON object in the body",
                ),
                self._route(
                    "GET",
                    "/resources",
                    self._list_resources,
                    "it lists all that you may see; GET /resources/read?uri=… reads one",
                ),
                self._route("GET", "/resources/read", self._read_resource, "", parameters=("uri",)),
                self._route("GET", "/me", self._me, "it is about the bearer of the token"),
                self._route(
                    "GET", "/openapi.json", self._openapi, "it describes all that you may see"
                ),
            ],
            redirect_slashes=False,  # a redirect has no body that says why
        )

    def _route(
        self,
        method: str,
        path: str,
        answer: Callable[[Request], Awaitable[Response]],
        instead: str,
        *,
        parameters: Collection[str] = (),
    ) -> Route:
        """Return a route that takes each query parameter once, and refuses others by name.

        Args:
            instead: what to use in place of a query parameter.
            parameters: the required query parameters.
        """

        async def answer_checked(request: Request) -> Response:
            # The path is decoded before it is routed. An encoded slash is part of a name (RFC 3986
            # section 2.2), and no tool has one in its name. A gateway that compares paths would see
            # another path than this server.
            if b"%2f" in request.scope.get("raw_path", b"").lower():
                raise HTTPException(HTTPStatus.NOT_FOUND)
            names = [name for name, _ in request.query_params.multi_items()]
            unknown = [name for name in dict.fromkeys(names) if name not in parameters]
            if unknown:
                shown = ", ".join(json.dumps(name[:64]) for name in unknown[:_NAMES_SHOWN])
                more = " and others" if len(unknown) > _NAMES_SHOWN else ""
                taken = f"this path takes {' and '.join(parameters) or 'none'}"
                text = f"unknown query parameters: {shown}{more}; {taken}"
                return _error(
                    request, errors.INVALID_REQUEST, f"{text}: {instead}" if instead else text
                )
            if sorted(names) != sorted(parameters):
                text = f"the query must have {' and '.join(parameters)} once"
                return _error(request, errors.INVALID_REQUEST, text)
            return await self._without_details(request, answer)

        return Route(path, answer_checked, methods=[method])

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
                request,
                errors.INTERNAL_ERROR,
                str(error),
                retryable=False,
                request_id=caller.request_id,
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
            headers=_PRIVATE,
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
            headers=_PRIVATE,
        )

    async def _visible(self, request: Request, method: str) -> Visible | Response:
        state = RequestState.of(request.scope)

        async def work(_: Obligations) -> Visible:
            return await self._gate.visible(state.caller, method)

        try:
            call = Call(method, Resource("server", "enterprise-mcp"))
            return (await self._gate.perform(state.caller, call, work)).value
        except Refused as refusal:
            return _refused(request, refusal)

    async def _read_resource(self, request: Request) -> Response:
        reading = await self._reading(request, request.query_params["uri"])
        if isinstance(reading, Response):
            return reading
        return JSONResponse(
            {
                "uri": reading.value.uri,
                "mime_type": reading.value.mime_type,
                "text": reading.value.text,
                "request_id": RequestState.of(request.scope).caller.request_id,
            },
            headers={**_PRIVATE, **_quota_headers(reading.quota)},
        )

    async def _me(self, request: Request) -> Response:
        reading = await self._reading(request, POLICY_ME)
        if isinstance(reading, Response):
            return reading
        return JSONResponse(
            json.loads(reading.value.text), headers={**_PRIVATE, **_quota_headers(reading.quota)}
        )

    async def _reading(self, request: Request, uri: str) -> Answer[Reading] | Response:
        caller = RequestState.of(request.scope).caller
        try:
            return await self._resources.read(self._gate, caller, uri)
        except Refused as refusal:
            return _refused(request, refusal)
        except Failed as error:
            kind = errors.TOOL_UNAVAILABLE if error.retryable else errors.TOOL_ERROR
            return _error(request, kind, str(error), retryable=error.retryable)

    async def _openapi(self, request: Request) -> Response:
        visible = await self._visible(request, "tools/list")
        if isinstance(visible, Response):
            return visible
        tools = [tool for tool in self._gate.catalog if tool.name in visible.tools]
        return JSONResponse(openapi(tools, self._public_origin), headers=_PRIVATE)

    async def _execute(self, request: Request) -> Response:
        state = RequestState.of(request.scope)
        arguments = state.body
        if isinstance(arguments, dict) and set(arguments) == {"arguments"}:
            # As over MCP, where `arguments` may be null (tools/call).
            arguments = {} if arguments["arguments"] is None else arguments["arguments"]
        if not isinstance(arguments, dict):
            return _error(
                request, errors.INVALID_REQUEST, "the body must be an object of arguments"
            )
        keys = request.headers.getlist("idempotency-key")
        if len(keys) > 1 or not all(0 < len(key) <= _MAX_KEY and _printable(key) for key in keys):
            text = f"Idempotency-Key must be there once, with 1 to {_MAX_KEY} printable ASCII characters"
            return _error(request, errors.INVALID_REQUEST, text)
        try:
            answer = await call_tool(
                self._gate,
                state.caller,
                self._wire_name(request.path_params["name"]),
                arguments,
                key=self._key_of(state.caller.subject, keys[0]) if keys else None,
            )
        except InvalidArguments as error:
            return _error(request, errors.INVALID_ARGUMENTS, str(error))
        except KeyConflict as conflict:
            after = {"Retry-After": str(conflict.retry_after_s)} if conflict.retry_after_s else {}
            return _error(request, _CONFLICTS[conflict.kind], str(conflict), after)
        except Refused as refusal:
            return _refused(request, refusal)
        return _executed(request, answer)

    def _wire_name(self, name: str) -> str:
        """Return the name of a tool that clients use; its name in the policy is taken too."""
        return next((tool.wire_name for tool in self._gate.catalog if tool.name == name), name)


def takes_body(path: str) -> bool:
    """Return whether a POST to a path of the REST API has a body."""
    return path.startswith("/tools/") and path.endswith("/execute")


def wrong_path(
    paths: str = _PATHS,
) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return a handler for a path or a method without a route, which responds like all errors.

    Args:
        paths: the existing paths, in words.
    """

    async def answer(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # The framework lists them in the order of a set, which differs from process to process.
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            text = f"this path takes {allowed}"
            return _error(request, errors.METHOD_NOT_ALLOWED, text, {"Allow": allowed})
        text = f"{error.detail}; known paths: {paths}"
        return _error(request, errors.NOT_FOUND, text, error.headers)

    return answer


def _executed(request: Request, answer: Answer[ToolAnswer]) -> Response:
    result = answer.value
    headers = _quota_headers(answer.quota)
    if result.replayed:
        headers["Idempotency-Replayed"] = "true"
    if result.is_error:
        kind = errors.TOOL_UNAVAILABLE if result.retryable else errors.TOOL_ERROR
        return _error(request, kind, result.text, headers, retryable=result.retryable)
    caller = RequestState.of(request.scope).caller
    return JSONResponse(
        {"result": result.structured, "text": result.text, "request_id": caller.request_id},
        headers=headers,
    )


def _refused(request: Request, refusal: Refused) -> Response:
    state = RequestState.of(request.scope)
    headers: dict[str, str] = {}
    state.refusal = refusal  # the HTTP guard adds what clients and the load balancer look at
    match refusal:
        case Limited():
            headers = _quota_headers(refusal.quota)
            headers["Retry-After"] = str(max(math.ceil(refusal.retry_after_ms / 1000), 1))
        case Refused(retryable=True) if not isinstance(refusal, NodeUnavailable):
            headers = {"Retry-After": str(RETRY_AFTER_S)}
    return _error(
        request,
        kind_of(refusal),
        str(refusal),
        headers,
        **refusal_details(refusal),
        request_id=state.caller.request_id,
    )


def _error(
    request: Request,
    kind: ErrorKind,
    message: str,
    headers: Mapping[str, str] | None = None,
    **details: Any,
) -> Response:
    return problem(kind, message, request_id_of(request.headers), headers=headers, **details)


def _printable(key: str) -> bool:
    return key.isascii() and key.isprintable()


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
