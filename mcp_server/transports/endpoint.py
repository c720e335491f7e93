"""The HTTP endpoint of MCP: a JSON document for an answer, an event stream for a call with progress."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http import check_accept_headers
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import INVALID_REQUEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from mcp_server.transports.edge import EdgeState

__all__ = ["McpEndpoint"]


def _error(status: int, message: str, *, to: Any = None, **headers: str) -> Response:
    answered = to.get("id") if isinstance(to, dict) else None
    return JSONResponse(
        {
            "jsonrpc": "2.0",
            "id": answered if _is_id(answered) else None,
            "error": {"code": INVALID_REQUEST, "message": message},
        },
        status_code=status,
        headers=headers,
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


_NOT_ALLOWED = _error(405, "/mcp takes POST; there are no sessions", Allow="POST")


class McpEndpoint:
    """Serves an MCP server over Streamable HTTP, without sessions, behind an `Edge`.

    A JSON document is what any proxy can buffer, repeat and log, so it is the rule. Only a tool call
    that names a `progressToken` is answered with an event stream (Streamable HTTP, "Sending Messages to
    the Server"): what happens before its end has no other way to the client.

    Args:
        server: dispatches the messages.
        max_body_bytes: the largest body that is read.
    """

    def __init__(self, server: Server[Any], *, max_body_bytes: int) -> None:
        # Host and Origin were looked at before: the library's words on them are no JSON.
        self._documents, self._streams = (
            StreamableHTTPSessionManager(
                server,
                json_response=json_response,
                stateless=True,
                max_request_body_size=max_body_bytes,
            )
            for json_response in (True, False)
        )

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve until left; requests in progress are cancelled then."""
        async with self._documents.run(), self._streams.run():
            yield

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request.

        Only POST: without sessions, what GET would open is a stream that nothing is ever sent on, and
        that no decision was made about; there is no session to DELETE.
        """
        if scope["method"] != "POST":
            await _NOT_ALLOWED(scope, receive, send)
            return
        document = EdgeState.of(scope).document
        if (fault := _fault(document)) is not None:
            await _error(400, fault, to=document)(scope, receive, send)
            return
        sessions = self._streams if _wants_progress(scope) else self._documents
        await sessions.handle_request(scope, receive, send)


# What a message must be (JSON-RPC 2.0, sections 4 and 5), each with what is said where it is not.
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


def _fault(document: Any) -> str | None:
    """Return what keeps a body from being one message of JSON-RPC 2.0, if anything."""
    if isinstance(document, list):
        return (
            "the body is a batch, which MCP no longer has; send each message in a POST of its own"
        )
    if not isinstance(document, dict):
        return "the body must be a JSON-RPC message: an object"
    return next((fault for holds, fault in _RULES if not holds(document)), None)


def _wants_progress(scope: Scope) -> bool:
    """Tell whether the client waits for reports of a call and takes them as events."""
    document = EdgeState.of(scope).document
    if not isinstance(document, dict) or document.get("method") != "tools/call":
        return False
    params = document.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    if not isinstance(meta, dict) or meta.get("progressToken") is None:
        return False
    return all(check_accept_headers(Request(scope)))
