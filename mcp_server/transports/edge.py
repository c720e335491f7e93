"""What every HTTP request meets before its door: size, strict JSON, and who is calling."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_server import telemetry
from mcp_server.gate import Caller
from mcp_server.identity import AuthenticationError, TokenVerifier
from mcp_server.transports import strict_json

__all__ = ["METADATA_PATH", "Edge", "EdgeState", "challenge"]

METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
"""Where RFC 9728 section 3.1 puts the metadata of the resource `/mcp`."""

_STATE_KEY = "mcp_server.edge"
_MAX_USER_AGENT = 256
_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
RETRY_AFTER_S = 2
"""What a client is told to wait, in seconds, when a node or a store is not available."""


@dataclass(slots=True)
class EdgeState:
    """What the edge tells the door about one request, and the door the edge about its answer.

    Attributes:
        caller: the authenticated caller.
        document: the parsed body of a POST, else None.
        node_unavailable: set by the door when this node could not decide and nothing was done; the
            response then gets status 503, so that the load balancer asks another node.
    """

    caller: Caller
    document: Any = None
    node_unavailable: bool = False

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> EdgeState:
        """Return the state of the request that `scope` belongs to."""
        state = scope[_STATE_KEY]
        if not isinstance(state, cls):
            raise TypeError("the request did not come through the edge")
        return state


class Edge:
    """ASGI middleware around a door.

    Args:
        app: the door.
        transport: how the door is named to the policy.
        verifier: turns a bearer token into a subject.
        public_origin: for the challenge's URL.
        max_body_bytes: the largest body that is read; a larger one gets 413.
        draining: whether the node was told to stop: new requests then get 503 and are not run, so
            that the load balancer moves them to another node.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        transport: Literal["mcp", "rest"],
        verifier: TokenVerifier,
        public_origin: str,
        max_body_bytes: int,
        draining: Callable[[], bool],
    ) -> None:
        self._draining = draining
        self._app = app
        self._transport = transport
        self._verifier = verifier
        self._public_origin = public_origin
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if self._draining():
            await _DRAINING(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            caller = self._caller(scope, headers)
        except AuthenticationError as error:
            telemetry.AUTHENTICATION_FAILURES.labels(error.code or "no_token").inc()
            await challenge(error, self._public_origin)(scope, receive, send)
            return
        state = EdgeState(caller)
        scope[_STATE_KEY] = state
        if scope["method"] == "POST":
            body = await self._body(headers, receive)
            if body is None:
                await self._too_large()(scope, receive, send)
                return
            try:
                state.document = strict_json.parse(body)
            except strict_json.StrictJsonError as error:
                await self._malformed(str(error))(scope, receive, send)
                return
            receive = _replay(body, receive)
        await self._app(scope, receive, _status_503_when_unavailable(state, send))

    def _caller(self, scope: Scope, headers: Headers) -> Caller:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not scheme:
            raise AuthenticationError("a bearer token is required", code="")
        if scheme.lower() != "bearer" or not token.strip():
            raise AuthenticationError(
                "the Authorization header must be: Bearer <token>", code="invalid_request"
            )
        return Caller(
            subject=self._verifier.verify(token.strip()),
            ip=_canonical_ip(scope),
            user_agent=headers.get("user-agent", "")[:_MAX_USER_AGENT],
            request_id=headers.get("x-request-id", "")[:64] or uuid.uuid4().hex,
            transport=self._transport,
        )

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """Return the whole body, or None as soon as it is known to be too large."""
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared) > self._max_body_bytes:
            return None
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                return None
            more = message.get("more_body", False)
        return bytes(body)

    def _too_large(self) -> Response:
        return self._error(
            413, _INVALID_REQUEST, f"the body is larger than {self._max_body_bytes} bytes"
        )

    def _malformed(self, why: str) -> Response:
        return self._error(400, _PARSE_ERROR, why)

    def _error(self, status: int, code: int, message: str) -> Response:
        body: dict[str, Any]
        if self._transport == "mcp":
            body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
        else:
            body = {"error": {"code": "invalid_request", "message": message}}
        return JSONResponse(body, status_code=status)


_DRAINING = JSONResponse(
    {"error": {"code": "draining", "message": "this node is stopping; try again"}},
    status_code=503,
    headers={"Retry-After": "1", "Connection": "close"},
)


def challenge(error: AuthenticationError, public_origin: str) -> Response:
    """Return the 401 of RFC 6750 section 3 that names the RFC 9728 metadata document."""
    parts = [f'resource_metadata="{public_origin}{METADATA_PATH}"']
    if error.code:
        parts = [f'error="{error.code}"', f'error_description="{error}"', *parts]
    return JSONResponse(
        {"error": {"code": error.code or "unauthorized", "message": str(error)}},
        status_code=401,
        headers={"WWW-Authenticate": "Bearer " + ", ".join(parts)},
    )


def _canonical_ip(scope: Scope) -> str:
    """Return the client's address in the one form the policy compares (RFC 5952; no mapped IPv4)."""
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        raise AuthenticationError(
            "the client's address is not known", code="invalid_request"
        ) from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive channel that gives `body` once and then what the client does next."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _status_503_when_unavailable(state: EdgeState, send: Send) -> Send:
    """Return a send channel that answers 503 where the door says that this node cannot decide.

    The status is held back until the body begins: an event stream has its status before its door has
    said anything.
    """
    start: Message | None = None

    async def with_status(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        if start is not None:
            if state.node_unavailable:
                retry_after = (b"retry-after", str(RETRY_AFTER_S).encode())
                start = {
                    **start,
                    "status": 503,
                    "headers": [*start.get("headers", []), retry_after],
                }
            await send(start)
            start = None
        await send(message)

    return with_status
