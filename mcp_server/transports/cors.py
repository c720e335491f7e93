"""CORS: which web origins may call the server, and the response headers for browsers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["AllowedOrigins", "Cors"]

_METHODS = "GET, POST, DELETE"
_REQUEST_HEADERS = (
    "Accept, Authorization, Content-Type, DPoP, Idempotency-Key, Last-Event-ID, Mcp-Method, Mcp-Name, "
    "Mcp-Session-Id, MCP-Protocol-Version, Traceparent, Tracestate"
)
_RESPONSE_HEADERS = (
    "Idempotency-Replayed, Mcp-Session-Id, RateLimit, RateLimit-Policy, Retry-After, "
    "WWW-Authenticate, X-Request-Id"
)
_PREFLIGHT_S = 600
_LABEL = "[a-z0-9_-]{1,63}"


class AllowedOrigins:
    """The origins whose pages may call this server: the public origin and `cors.allowed_origins`.

    Browsers send an origin in its canonical form (RFC 6454 section 6.2), so any other form is another
    origin: other case, a trailing dot, `null`.

    Args:
        public_origin: the server's own origin.
        others: origins as `CorsSettings` has them.
    """

    def __init__(self, public_origin: str, others: Iterable[str] = ()) -> None:
        self._public = public_origin
        patterns = [re.escape(origin).replace(r"\*", _LABEL) for origin in others]
        self._others = re.compile("|".join(patterns)) if patterns else None

    @property
    def any_other(self) -> bool:
        """Whether pages of any other origin may call."""
        return self._others is not None

    def refuses(self, headers: Headers) -> bool:
        """Return whether a page of another origin made the request, for example by DNS rebinding."""
        return any(
            origin not in {"", self._public} and not self._allows(origin)
            for origin in headers.getlist("origin")
        )

    def cross_origin(self, headers: Headers) -> str | None:
        """Return the other origin whose page made the request, if it may call; else None."""
        given = headers.getlist("origin")
        return given[0] if len(given) == 1 and self._allows(given[0]) else None

    def _allows(self, origin: str) -> bool:
        return self._others is not None and self._others.fullmatch(origin) is not None


class Cors:
    """ASGI middleware that answers preflights and lets pages of allowed origins read responses.

    It is the outermost one, so that pages can read errors too. Responses to other origins have no CORS
    headers.

    Args:
        app: the application.
        origins: the allowed origins.
    """

    def __init__(self, app: ASGIApp, origins: AllowedOrigins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not self._origins.any_other:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = self._origins.cross_origin(headers)
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if preflight and origin is not None:
            await _preflight(origin)(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                response = MutableHeaders(raw=message.setdefault("headers", []))
                response.append("Vary", "Origin")
                if origin is not None:
                    response["Access-Control-Allow-Origin"] = origin
                    response["Access-Control-Allow-Credentials"] = "true"
                    response["Access-Control-Expose-Headers"] = _RESPONSE_HEADERS
            await send(message)

        await self._app(scope, receive, with_headers)


def _preflight(origin: str) -> Response:
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": str(_PREFLIGHT_S),
            "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        },
    )
