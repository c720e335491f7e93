"""HTTP routes without a token: health, readiness, metrics, and the metadata of the OAuth resource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import Receive, Scope, Send

from mcp_server import __version__
from mcp_server.health.readiness import Readiness
from mcp_server.identity.dpop import ALGORITHMS

__all__ = ["health_routes", "telemetry_routes"]

_NO_STORE = {"Cache-Control": "no-store"}
_METADATA = "oauth-protected-resource"


def health_routes(
    *,
    readiness: Callable[[], Readiness],
    draining: Callable[[], bool],
    public_origin: str,
    authorization_servers: Sequence[str],
    client_certificates: bool,
) -> list[BaseRoute]:
    """Return `/health/live`, `/health/ready`, `/health` and the metadata document of RFC 9728.

    Everyone can read them, so the health routes tell the state of the node only. The state of its parts,
    the version and the policy revision are on the telemetry listener (`telemetry_routes`).

    The metadata is at the path of RFC 9728 section 3.1 for the resource `/mcp`, and at the root, which
    MCP clients try next (authorization, "Protected Resource Metadata Discovery Requirements").

    Args:
        readiness: returns the latest result of the monitor.
        draining: whether the node was told to stop.
        authorization_servers: issuers from which clients can get tokens.
        client_certificates: whether tokens may be bound to certificates of clients (RFC 8705).
    """

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"}, headers=_NO_STORE)

    async def ready(_: Request) -> Response:
        state = readiness()
        if draining():
            return _not_ready("draining", "this node is stopping")
        if not state.ready:
            text = "this node cannot decide, count or record calls at the moment; use another node"
            return _not_ready("not_ready", text)
        return JSONResponse({"status": state.status}, headers=_NO_STORE)

    async def health(_: Request) -> Response:
        status = "healthy" if readiness().ready and not draining() else "degraded"
        return JSONResponse({"status": status}, headers=_NO_STORE)

    async def metadata(_: Request) -> Response:
        # A member without a value is left out (section 3.2).
        optional = {
            "authorization_servers": list(authorization_servers),
            "scopes_supported": list(readiness().scopes),
            "tls_client_certificate_bound_access_tokens": client_certificates,
        }
        return JSONResponse(
            {
                "resource": f"{public_origin}/mcp",
                "resource_name": "Enterprise MCP",
                "bearer_methods_supported": ["header"],
                "dpop_signing_alg_values_supported": list(ALGORITHMS),
                **{name: value for name, value in optional.items() if value},
            },
            headers={"Cache-Control": "public, max-age=3600"},
        )

    well_known = [Route(f"/{name}", metadata) for name in (_METADATA, f"{_METADATA}/mcp")]
    return [
        Route("/health/live", _Get(live), methods=None),
        Route("/health/ready", _Get(ready), methods=None),
        Route("/health", _Get(health), methods=None),
        # Public (RFC 8615): an unknown name gets 404, and no request for a token.
        Mount("/.well-known", Router(well_known, redirect_slashes=False)),
    ]


class _Get:
    """An endpoint that answers 405 to other methods than GET, before another route takes them."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)


def _not_ready(code: str, message: str) -> Response:
    error = {"code": code, "message": message}
    return JSONResponse({"status": code, "error": error}, status_code=503, headers=_NO_STORE)


def telemetry_routes(
    *, readiness: Callable[[], Readiness], inflight: Callable[[], int], draining: Callable[[], bool]
) -> list[Route]:
    """Return `/metrics` for Prometheus and `/status` for `mcpctl probe`."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(_: Request) -> Response:
        state = readiness()
        return JSONResponse(
            {
                **state.to_json(),
                "ready": state.ready and not draining(),
                "draining": draining(),
                "inflight": inflight(),
                "version": __version__,
            },
            headers=_NO_STORE,
        )

    return [Route("/metrics", metrics), Route("/status", status)]
