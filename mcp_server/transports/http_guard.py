"""Checks of every HTTP request before its handler: host, origin, token, size, strict JSON."""

from __future__ import annotations

import ipaddress
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_server.gate import (
    Caller,
    InternalError,
    Limited,
    NodeUnavailable,
    Refused,
    ScopeMissing,
)
from mcp_server.gate.sign_ins import Attempt, SignIns
from mcp_server.identity import AuthenticationError, IdentityUnavailable, Subject, Verifier
from mcp_server.identity.claimed import claimed_by
from mcp_server.identity.client_certificates import CERTIFICATE_HEADER, read_certificate
from mcp_server.identity.dpop import ALGORITHMS, DpopRequest
from mcp_server.identity.possession import Presented
from mcp_server.infrastructure import telemetry
from mcp_server.transports import errors
from mcp_server.transports.bodies import parsed, read_json, replay
from mcp_server.transports.cors import AllowedOrigins
from mcp_server.transports.errors import Rejection, Transport, transport_of

__all__ = [
    "METADATA_PATH",
    "HttpGuard",
    "RequestState",
    "TrustedHosts",
    "canonical_ip",
    "internal_error",
    "request_id_of",
    "require_service",
    "user_agent_of",
]

METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
"""The path of the metadata of the resource `/mcp` (RFC 9728 section 3.1)."""

_STATE_KEY = "mcp_server.request"
_MAX_USER_AGENT = 256
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]{1,5})?")
RETRY_AFTER_S = 2
"""Seconds for `Retry-After` when a node or a store is not available."""


@dataclass(slots=True)
class RequestState:
    """State of one HTTP request, shared between the guard and the handler behind it.

    Attributes:
        caller: the authenticated caller.
        body: the parsed body of a POST, else None.
        refusal: set by the handler when the gate refuses. If this node could not decide, the response
            gets status 503, so that the load balancer asks another node. If a scope is missing, it gets
            status 403 and a challenge, so that the client asks for the scope.
    """

    caller: Caller
    body: Any = None
    refusal: Refused | None = None

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> RequestState:
        """Return the state of the request that `scope` belongs to."""
        state = scope[_STATE_KEY]
        if not isinstance(state, cls):
            raise TypeError("the request did not pass the HTTP guard")
        return state


class TrustedHosts:
    """ASGI middleware that accepts only known Host headers, against DNS rebinding.

    Args:
        app: the application.
        names: accepted hosts without a port; an IPv6 address in any form, with or without brackets.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(map(_canonical_host, names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on, or respond with 400."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = _HOST.fullmatch(headers.get("host", ""))
            if host is None or _canonical_host(host[1]) not in self._names:
                rejection = Rejection(
                    errors.UNKNOWN_HOST, "the Host header names a host that is not served here"
                )
                answer = rejection.response(transport_of(scope["path"]), request_id_of(headers))
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


class HttpGuard:
    """ASGI middleware around the handler of a transport.

    Args:
        app: the handler.
        transport: the transport's name in the policy input; it also selects the form of errors.
        verifier: turns a bearer token into a subject.
        sign_ins: counts and records tokens that are not valid.
        public_origin: for the URL in the challenge.
        origins: the origins whose pages may call; requests by other pages are refused.
        max_body_bytes: a larger body gets 413.
        draining: whether the node is stopping: new requests get 503 and do not run, so that the load
            balancer sends them to another node.
        takes_body: returns whether a POST to a path has a body; any other gets 405 from the handler.
        initial_scope: returns the scope that a client without a token should ask for, or "".
        certificate_tenant: tenant of clients that show a certificate and no token; None: they get 401.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        transport: Transport,
        verifier: Verifier,
        sign_ins: SignIns,
        public_origin: str,
        origins: AllowedOrigins,
        max_body_bytes: int,
        draining: Callable[[], bool],
        initial_scope: Callable[[], str] = lambda: "",
        takes_body: Callable[[str], bool] = lambda _path: True,
        certificate_tenant: str | None = None,
    ) -> None:
        self._takes_body = takes_body
        self._draining = draining
        self._initial_scope = initial_scope
        self._certificate_tenant = certificate_tenant
        self._app = app
        self._transport = transport
        self._verifier = verifier
        self._sign_ins = sign_ins
        self._public_origin = public_origin
        self._origins = origins
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        headers = Headers(scope=scope)
        request_id = request_id_of(headers)
        try:
            require_service(headers, draining=self._draining(), origins=self._origins)
            try:
                state = RequestState(await self._caller(scope, headers, request_id))
            except AuthenticationError as error:
                telemetry.AUTHENTICATION_FAILURES.labels(error.code or "no_token").inc()
                if error.code in ("invalid_token", "invalid_dpop_proof"):
                    await self._count_failure(scope, headers, request_id, error)
                raise self._unauthorized(headers, error) from error
            except IdentityUnavailable as error:
                telemetry.AUTHENTICATION_FAILURES.labels("unavailable").inc()
                raise Rejection(
                    errors.UNAVAILABLE, str(error), retry_after_s=RETRY_AFTER_S
                ) from error
            if scope["method"] == "POST" and self._takes_body(scope["path"]):
                body = await read_json(headers, receive, self._max_body_bytes)
                state.body = parsed(body)
                receive = replay(body, receive)
        except Rejection as rejection:
            await rejection.response(self._transport, request_id)(scope, receive, send)
            return
        scope[_STATE_KEY] = state
        await self._app(scope, receive, self._with_status_of_refusal(headers, state, send))

    async def _count_failure(
        self, scope: Scope, headers: Headers, request_id: str, error: AuthenticationError
    ) -> None:
        """Count and record a token that is not valid.

        Raises:
            Rejection: too many from this address were not valid.
        """
        token = headers.get("authorization", "").partition(" ")[2].strip()
        attempt = Attempt(
            method="token",
            claimed=claimed_by(token),
            ip=canonical_ip(scope),
            user_agent=user_agent_of(headers),
            request_id=request_id,
            transport=self._transport,
        )
        try:
            await self._sign_ins.token_refused(attempt, str(error), counted=not error.expired)
        except Limited as limited:
            raise Rejection(
                errors.RATE_LIMITED,
                str(limited),
                retry_after_s=max(math.ceil(limited.retry_after_ms / 1000), 1),
            ) from error

    async def _caller(self, scope: Scope, headers: Headers, request_id: str) -> Caller:
        return Caller(
            subject=await self._subject(scope, headers),
            ip=canonical_ip(scope),
            user_agent=user_agent_of(headers),
            request_id=request_id,
            transport=self._transport,
        )

    async def _subject(self, scope: Scope, headers: Headers) -> Subject:
        """Return the subject of a token, or else of the client's certificate."""
        shown = headers.get(CERTIFICATE_HEADER)
        certificate = read_certificate(shown) if shown else None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not scheme:
            if certificate is None or self._certificate_tenant is None:
                raise AuthenticationError("a bearer token is required", code="")
            return self._verifier.verify_certificate(certificate, self._certificate_tenant)
        if scheme.lower() not in ("bearer", "dpop") or not token.strip():
            raise AuthenticationError(
                "the Authorization header must be: Bearer <token>", code="invalid_request"
            )
        dpop = None
        if scheme.lower() == "dpop":
            # As the client wrote it: a decoded path could hold the characters that begin a query.
            url = f"{self._public_origin}{scope['raw_path'].decode('latin-1')}"
            # Several headers, which RFC 9449 section 4.3 refuses, are no JWT together.
            dpop = DpopRequest(", ".join(headers.getlist("dpop")), scope["method"], url)
        return await self._verifier.verify(token.strip(), Presented(certificate, dpop))

    def _unauthorized(self, headers: Headers, error: AuthenticationError) -> Rejection:
        """Return the 401 of RFC 6750 section 3, or RFC 9449 section 7.1, with a challenge."""
        challenge = self._challenge(headers, error.code, str(error), self._initial_scope())
        return Rejection(
            errors.UNAUTHORIZED,
            str(error),
            code=error.code,
            headers={"WWW-Authenticate": challenge},
        )

    def _challenge(self, headers: Headers, code: str, description: str, scope: str) -> str:
        """Return a challenge with the scheme of the request and the URL of the metadata of RFC 9728.

        MCP clients read its scope (authorization, "Scope Challenge Handling"). RFC 6750 section 3 has
        the form of Bearer, RFC 9449 section 7.1 that of DPoP.
        """
        dpop = _scheme(headers) == "dpop"
        parts = {
            "algs": " ".join(ALGORITHMS) if dpop else "",
            "error": code,
            "error_description": description if code else "",
            "scope": scope,
            "resource_metadata": f"{self._public_origin}{METADATA_PATH}",
        }
        scheme = "DPoP" if dpop else "Bearer"
        return f"{scheme} " + ", ".join(f'{name}="{text}"' for name, text in parts.items() if text)

    def _with_status_of_refusal(self, headers: Headers, state: RequestState, send: Send) -> Send:
        """Return a send channel that gives a refused request its status and headers.

        The status is held back until the body begins: an event stream has its status before its handler
        has reported anything.
        """
        start: Message | None = None

        async def with_status(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                await send(self._refused(headers, start, state.refusal))
                start = None
            await send(message)

        return with_status

    def _refused(self, request: Headers, start: Message, refusal: Refused | None) -> Message:
        match refusal:
            case NodeUnavailable():
                status, header = 503, ("retry-after", str(RETRY_AFTER_S))
            case ScopeMissing(scope=scope):
                challenge = self._challenge(request, "insufficient_scope", str(refusal), scope)
                status, header = 403, ("www-authenticate", challenge)
            case _:
                return start
        name, value = header
        headers = [*start.get("headers", []), (name.encode(), value.encode())]
        return {**start, "status": status, "headers": headers}


def _scheme(headers: Headers) -> str:
    """Return the authentication scheme of a request in small letters, or ""."""
    return headers.get("authorization", "").partition(" ")[0].lower()


def require_service(headers: Headers, *, draining: bool, origins: AllowedOrigins) -> None:
    """Refuse a request that is not to be served: this node is stopping, or a foreign page sent it.

    Raises:
        Rejection: with the reason.
    """
    if draining:
        raise _draining()
    if origins.refuses(headers):
        raise _foreign_origin()


async def internal_error(request: Request, error: Exception) -> Response:
    """Respond to a request that failed outside the gate, and log why."""
    request_id = request_id_of(request.headers)
    telemetry.log.error(
        "internal_error",
        request_id=request_id,
        method=f"{request.method} {request.url.path}",
        exc_info=error,
    )
    text = str(InternalError(request_id))
    rejection = Rejection(errors.INTERNAL_ERROR, text)
    return rejection.response(transport_of(request.url.path), request_id)


def request_id_of(headers: Headers) -> str:
    """Return the request id from the load balancer, or a new one."""
    return headers.get("x-request-id", "")[:64] or uuid.uuid4().hex


def user_agent_of(headers: Headers) -> str:
    """Return the client's User-Agent, or its beginning."""
    return headers.get("user-agent", "")[:_MAX_USER_AGENT]


def _draining() -> Rejection:
    return Rejection(
        errors.DRAINING,
        "this node is stopping; try again",
        retry_after_s=1,
        headers={"Connection": "close"},
    )


def _foreign_origin() -> Rejection:
    return Rejection(errors.FOREIGN_ORIGIN, "pages of another origin may not call this server")


def canonical_ip(scope: Scope) -> str:
    """Return the client's address in the canonical form of the policy (RFC 5952; no mapped IPv4)."""
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


def _canonical_host(name: str) -> str:
    """Return a name or an address in the form that is compared."""
    try:
        return str(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return name.lower()
