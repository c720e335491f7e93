"""The HTTP endpoint of MCP: JSON responses, and an event stream for a call with progress."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from mcp.server.streamable_http import check_accept_headers
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    decode_header_value,
)
from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from mcp_server.transports import errors
from mcp_server.transports.client_info import reported_client
from mcp_server.transports.direct_calls import DirectCalls
from mcp_server.transports.errors import Rejection, error_data
from mcp_server.transports.http_guard import RequestState
from mcp_server.transports.mcp import McpTransport

__all__ = ["StreamableHttp"]


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


_NOT_ALLOWED = Rejection(
    errors.METHOD_NOT_ALLOWED,
    "/mcp takes POST; there are no sessions",
    headers={"Allow": "POST"},
)


class StreamableHttp:
    """Serves an MCP server over Streamable HTTP, without sessions, behind an `HttpGuard`.

    Any proxy can buffer, repeat and log a JSON response, so it is the rule. Only a tool call with a
    `progressToken` gets an event stream (Streamable HTTP, "Sending Messages to the Server"): reports of
    progress have no other way to the client.

    Args:
        transport: handles the messages.
        max_body_bytes: the largest body that is read.
    """

    def __init__(self, transport: McpTransport, *, max_body_bytes: int) -> None:
        self._direct = DirectCalls(transport)
        # The HTTP guard has checked Host and Origin: the library's errors about them are not JSON.
        self._json, self._streams = (
            StreamableHTTPSessionManager(
                transport.server,
                json_response=json_response,
                stateless=True,
                max_request_body_size=max_body_bytes,
            )
            for json_response in (True, False)
        )

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve inside the block; its end cancels requests in progress."""
        async with self._json.run(), self._streams.run():
            yield

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request.

        Only POST: without sessions, GET would open a stream without a decision, on which nothing is ever
        sent, and there is no session to DELETE.
        """
        state = RequestState.of(scope)
        body = state.body
        scope = _canonical(scope)
        try:
            if scope["method"] != "POST":
                raise _NOT_ALLOWED
            _require_acceptable(scope, body)
            _require_matching_headers(Headers(scope=scope), body)
            if (fault := _fault(body)) is not None:
                raise Rejection(errors.INVALID_REQUEST, fault)
        except Rejection as rejection:
            answered = body.get("id") if isinstance(body, dict) else None
            answer = rejection.response(
                "mcp", state.caller.request_id, answered=answered if _is_id(answered) else None
            )
            await answer(scope, receive, send)
            return
        state.caller = replace(state.caller, client_info=reported_client(body))
        completing = _in_documented_form(scope, receive, send)
        if (call := self._direct.recognise(scope, body)) is not None:
            response = await self._direct.answer(call, state)
            await response(scope, receive, completing)
            return
        sessions = self._streams if _wants_progress(scope, body) else self._json
        await sessions.handle_request(scope, receive, completing)


def _canonical(scope: Scope) -> Scope:
    """Return a request with the headers that the SDK compares in the form that the SDK knows.

    Media types ignore case (RFC 9110 section 8.3.1); the HTTP guard has checked the type of the body. An
    Accept header may come in several lines (section 5.3), and a request without one accepts every type
    (section 12.5.1).
    """
    given = Headers(scope=scope)
    accept = ", ".join(given.getlist("accept")) or "*/*"
    headers = [each for each in scope["headers"] if each[0] not in (b"accept", b"content-type")]
    headers += [(b"accept", accept.encode("latin-1")), (b"content-type", b"application/json")]
    return {**scope, "headers": headers}


# Rules for a message (JSON-RPC 2.0, sections 4 and 5), each with the error text.
_RULES: tuple[tuple[Callable[[dict[str, Any]], bool], str], ...] = (
    (
        lambda message: message.get("jsonrpc") == "2.0",
        'the message must have the member "jsonrpc" with the value "2.0"',
    ),
    (
        lambda message: "id" not in message or _is_id(message["id"]),
        'the member "id" must be a string or an integer; a notification has none',
    ),
    (
        lambda message: not message.keys().isdisjoint(("method", "result", "error")),
        'the message must have the member "method"',
    ),
    (
        lambda message: isinstance(message.get("method", ""), str),
        'the member "method" must be a string',
    ),
    (
        lambda message: isinstance(message.get("params", {}), dict),
        'the member "params" must be an object',
    ),
)


def _fault(body: Any) -> str | None:
    """Return why a body is not one JSON-RPC 2.0 message, or None."""
    if isinstance(body, list):
        return (
            "the body is a batch, which MCP no longer supports; send each message in its own POST"
        )
    if not isinstance(body, dict):
        return "the body must be a JSON-RPC message: an object"
    return next((fault for holds, fault in _RULES if not holds(body)), None)


def _require_acceptable(scope: Scope, body: Any) -> None:
    """Refuse a request whose Accept header excludes the type of the response.

    Raises:
        Rejection: 406 with the media type.
    """
    takes_json, takes_events = check_accept_headers(Request(scope))
    listens = isinstance(body, dict) and body.get("method") == "subscriptions/listen"
    if not takes_json or (listens and not takes_events):
        needed = "application/json" + (" and text/event-stream" if listens else "")
        raise Rejection(errors.NOT_ACCEPTABLE, f"the Accept header must have {needed}")


def _require_matching_headers(headers: Headers, body: Any) -> None:
    """Refuse a message of the handshake era that the headers of the newer era describe wrongly.

    Gateways route and limit by these headers (2026-07-28, Streamable HTTP, "Request Headers"). In the
    newer era the SDK compares them.

    Raises:
        Rejection: 400 with the header that differs.
    """
    version = headers.get(MCP_PROTOCOL_VERSION_HEADER)
    if version in MODERN_PROTOCOL_VERSIONS or not isinstance(body, dict):
        return
    method, params = body.get("method"), body.get("params")
    params = params if isinstance(params, dict) else {}
    meta = params.get("_meta")
    envelope = meta.get(PROTOCOL_VERSION_META_KEY) if isinstance(meta, dict) else None
    name = params.get(NAME_BEARING_METHODS.get(str(method), ""))
    for header, differs in (
        (MCP_PROTOCOL_VERSION_HEADER, envelope not in (None, version)),
        (MCP_METHOD_HEADER, headers.get(MCP_METHOD_HEADER, method) != method),
        (
            MCP_NAME_HEADER,
            MCP_NAME_HEADER in headers and decode_header_value(headers[MCP_NAME_HEADER]) != name,
        ),
    ):
        if differs:
            raise Rejection(
                errors.HEADER_MISMATCH, f"the header {header} differs from the message in the body"
            )


def _wants_progress(scope: Scope, body: Any) -> bool:
    """Tell whether the client asks for progress of a call and accepts an event stream."""
    if body.get("method") != "tools/call":
        return False
    meta = body.get("params", {}).get("_meta")
    if not isinstance(meta, dict) or meta.get("progressToken") is None:
        return False
    return all(check_accept_headers(Request(scope)))


def _in_documented_form(scope: Scope, receive: Receive, send: Send) -> Send:
    """Return a send channel that completes the `data` of error responses.

    The SDK makes some before any handler runs, without `data` or parts of it.
    """
    request_id = RequestState.of(scope).caller.request_id
    status = 0
    body = bytearray()

    async def completing(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
            status = message["status"]
        elif not status:
            await send(message)
        else:
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                answer = _completed(status, bytes(body), request_id)
                await answer(scope, receive, send)

    return completing


def _completed(status: int, body: bytes, request_id: str) -> Response:
    try:
        message = json.loads(body)
        error = message["error"]
        number, given = error["code"], error.get("data")
    except (ValueError, KeyError, TypeError, AttributeError):
        server = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = errors.INTERNAL_ERROR if server else errors.INVALID_REQUEST
        rejection = Rejection(replace(kind, status=status), HTTPStatus(status).phrase)
        return rejection.response("mcp", request_id)
    data = error_data(number, request_id, given)
    return JSONResponse({**message, "error": {**error, "data": data}}, status_code=status)
