"""The HTTP endpoint of MCP: a JSON document for an answer, an event stream for a call with progress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http import check_accept_headers
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import INVALID_REQUEST
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from mcp_server.transports.edge import EdgeState

__all__ = ["McpEndpoint"]


_NOT_ALLOWED = JSONResponse(
    {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": INVALID_REQUEST, "message": "/mcp takes POST; there are no sessions"},
    },
    status_code=405,
    headers={"Allow": "POST"},
)


class McpEndpoint:
    """Serves an MCP server over Streamable HTTP, without sessions, behind an `Edge`.

    A JSON document is what any proxy can buffer, repeat and log, so it is the rule. Only a tool call
    that names a `progressToken` is answered with an event stream (Streamable HTTP, "Sending Messages to
    the Server"): what happens before its end has no other way to the client.

    Args:
        server: dispatches the messages.
        max_body_bytes: the largest body that is read.
        security: the Host and Origin values that are answered.
    """

    def __init__(
        self, server: Server[Any], *, max_body_bytes: int, security: TransportSecuritySettings
    ) -> None:
        self._documents, self._streams = (
            StreamableHTTPSessionManager(
                server,
                json_response=json_response,
                stateless=True,
                max_request_body_size=max_body_bytes,
                security_settings=security,
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
        sessions = self._streams if _wants_progress(scope) else self._documents
        await sessions.handle_request(scope, receive, send)


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
