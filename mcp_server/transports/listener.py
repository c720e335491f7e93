"""Listeners: TLS that asks every peer for a certificate, and lets in only the peers that are named."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mcp_server.identity.client_certificates import CERTIFICATE_HEADER
from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.tls import renew_server_context, server_context
from mcp_server.settings import ListenSettings, TelemetrySettings
from mcp_server.transports import errors
from mcp_server.transports.errors import Rejection, transport_of
from mcp_server.transports.http_guard import request_id_of

__all__ = ["Listener"]

_GOODBYE_S = 1.0
_CERTIFICATE_HEADER = CERTIFICATE_HEADER.encode()


class Listener:
    """One listening socket and the application behind it.

    Args:
        settings: address, TLS and the DNS names of the peers that may connect.
        graceful_s: how long requests in progress may still take when the listener closes; then they
            are cut off without an answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ListenSettings | TelemetrySettings,
        *,
        graceful_s: int,
    ) -> None:
        self._settings = settings
        self._context = server_context(settings.tls) if settings.tls else None
        proxies: tuple[str, ...] = ()
        certificates = False
        if isinstance(settings, ListenSettings):
            proxies, certificates = settings.trusted_proxies, settings.client_certificates
        self._server = _Server(
            uvicorn.Config(
                _ProxyHeaders(app, list(proxies), certificates=certificates),
                host=settings.host,
                port=settings.port,
                # uvloop showed a p99 above one second at 100 connections, asyncio below 0.1 s.
                loop="asyncio",
                http=_pinned(settings.allowed_peers) if settings.tls else _Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # _ProxyHeaders does it.
                proxy_headers=False,
                ssl_context_factory=_factory(self._context) if self._context else None,
                limit_concurrency=(
                    settings.max_concurrency if isinstance(settings, ListenSettings) else None
                ),
                timeout_keep_alive=75,
                timeout_graceful_shutdown=graceful_s,
                backlog=2048,
            )
        )

    async def serve(self) -> None:
        """Serve until `close` is called.

        Raises:
            SystemExit: the address is in use or not ours (uvicorn's way to say so).
        """
        await self._server.serve()

    @property
    def started(self) -> bool:
        """Whether the socket is listening."""
        return self._server.started

    def close(self) -> None:
        """Stop accepting, let the requests in progress end, then let `serve` return."""
        self._server.should_exit = True

    def reload_certificate(self) -> None:
        """Use the certificate, key and authorities that are in the files now, for new connections.

        Raises:
            SettingsError: a file cannot be used; what was used before still is.
        """
        tls = self._settings.tls
        if self._context is not None and tls is not None:
            renew_server_context(self._context, tls)


class _ProxyHeaders(ProxyHeadersMiddleware):
    """Takes the client's address and certificate from headers of trusted proxies, and of nobody else.

    Args:
        proxies: their addresses.
        certificates: whether the proxies pass verified certificates (`listen.client_certificates`).
    """

    def __init__(self, app: ASGIApp, proxies: list[str], *, certificates: bool) -> None:
        super().__init__(cast(ASGI3Application, app), proxies)
        self._certificates = certificates

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        client = scope.get("client")
        trusted = client is not None and client[0] in self.trusted_hosts
        if not (trusted and self._certificates):
            headers = [each for each in scope["headers"] if each[0] != _CERTIFICATE_HEADER]
            scope = {**scope, "headers": headers}
        await super().__call__(scope, receive, send)


class _Protocol(HttpToolsProtocol):
    """HTTP/1.1 whose own error responses are JSON."""

    def send_400_response(self, msg: str) -> None:
        """Respond to bytes that are not HTTP, and close the connection.

        Args:
            msg: the fault.
        """
        # The path is unknown, so the form of REST is as good as any.
        body = bytes(Rejection(errors.BAD_REQUEST, msg).response("rest", "").body)
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, _busy if app is service_unavailable else app)


async def _busy(scope: Any, receive: Any, send: Any) -> None:
    """Respond to a request above the limit of concurrent requests."""
    rejection = Rejection(
        errors.BUSY,
        "this node has as many requests in progress as it takes; try again",
        retry_after_s=1,
        headers={"Connection": "close"},
    )
    request_id = request_id_of(Headers(scope=scope))
    await rejection.response(transport_of(scope["path"]), request_id)(scope, receive, send)


class _Server(uvicorn.Server):
    """A server without signal handlers: the composition root stops two of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _factory(context: ssl.SSLContext) -> Callable[..., ssl.SSLContext]:
    return lambda *_: context


def _pinned(names: Sequence[str]) -> type[asyncio.Protocol]:
    """Return an HTTP protocol that closes connections whose certificate has none of `names`."""
    accepted = frozenset(names)

    class PinnedProtocol(_Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
            certificate = cast("dict[str, Any]", transport.get_extra_info("peercert") or {})
            bears = {
                value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"
            }
            super().connection_made(transport)
            if not accepted & bears:
                telemetry.log.warning("peer_refused", names=sorted(bears))
                transport.abort()

        def shutdown(self) -> None:
            idle = self.cycle is None or self.cycle.response_complete
            super().shutdown()
            if idle:
                # A peer that is gone does not close TLS, and uvicorn would wait half a minute for it.
                self.loop.call_later(_GOODBYE_S, self.transport.abort)

    return PinnedProtocol
