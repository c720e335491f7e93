"""Endpoints that ask for no token: health, readiness, and the OAuth resource's metadata."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_server import __version__
from mcp_server.readiness import Readiness
from mcp_server.transports.edge import METADATA_PATH

__all__ = ["health_routes", "telemetry_routes"]

_NO_STORE = {"Cache-Control": "no-store"}


def health_routes(
    *,
    readiness: Callable[[], Readiness],
    draining: Callable[[], bool],
    public_origin: str,
    issuer: str,
) -> list[Route]:
    """Return `/health/live`, `/health/ready`, `/health` and the metadata document of RFC 9728.

    Args:
        readiness: what the monitor saw last.
        draining: whether the node was told to stop.
        issuer: the authorization server, or the name under which tokens are issued.
    """

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "live"}, headers=_NO_STORE)

    async def ready(_: Request) -> Response:
        state = readiness()
        if draining():
            return JSONResponse({"status": "draining"}, status_code=503, headers=_NO_STORE)
        return JSONResponse(
            state.document(), status_code=200 if state.ready else 503, headers=_NO_STORE
        )

    async def health(_: Request) -> Response:
        status = "healthy" if readiness().ready and not draining() else "degraded"
        return JSONResponse({"status": status, "version": __version__}, headers=_NO_STORE)

    async def metadata(_: Request) -> Response:
        return JSONResponse(
            {
                "resource": f"{public_origin}/mcp",
                "resource_name": "Enterprise MCP",
                "authorization_servers": [issuer],
                "bearer_methods_supported": ["header"],
            },
            headers={"Cache-Control": "public, max-age=3600"},
        )

    return [
        Route("/health/live", live),
        Route("/health/ready", ready),
        Route("/health", health),
        Route(METADATA_PATH, metadata),
    ]


def telemetry_routes(
    *, readiness: Callable[[], Readiness], inflight: Callable[[], int], draining: Callable[[], bool]
) -> list[Route]:
    """Return `/metrics` for Prometheus and `/status` for the node's own operator (`mcpctl probe`)."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(_: Request) -> Response:
        state = readiness()
        return JSONResponse(
            {
                **state.document(),
                "ready": state.ready and not draining(),
                "draining": draining(),
                "inflight": inflight(),
                "version": __version__,
            },
            headers=_NO_STORE,
        )

    return [Route("/metrics", metrics), Route("/status", status)]
