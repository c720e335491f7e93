"""What the health endpoints answer of a node that is ready, is not, or is stopping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from mcp_server import __version__
from mcp_server.health.readiness import Readiness
from mcp_server.health.routes import health_routes, telemetry_routes

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("readiness", "draining", "status", "expected"),
    [
        (Readiness(policy=True, counters=True, audit=True, revision="r"), False, 200, {}),
        (
            Readiness(policy=True, audit=True, revision="r"),
            False,
            503,
            {"code": "not_ready", "message": "this node cannot decide, count or record calls"},
        ),
        (
            Readiness(policy=True, counters=True, audit=True, revision="r"),
            True,
            503,
            {"code": "draining", "message": "this node is stopping"},
        ),
    ],
    ids=["ready", "not ready", "draining"],
)
async def test_a_node_that_is_not_ready_says_so_as_an_error(
    readiness: Readiness, draining: bool, status: int, expected: dict[str, str]
) -> None:
    answer = await _ask(readiness, draining=draining)

    assert answer.status_code == status
    error: dict[str, Any] = answer.json().get("error", {})
    assert error.keys() == expected.keys()
    assert error.get("code") == expected.get("code")
    assert error.get("message", "").startswith(expected.get("message", ""))
    assert answer.json()["status"] == error.get("code", "ready")


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
@pytest.mark.parametrize("counters", [True, False])
async def test_everyone_learns_the_state_of_the_node_only(path: str, counters: bool) -> None:
    readiness = Readiness(policy=True, counters=counters, audit=True, revision="r")

    answer = await _ask(readiness, draining=False, path=path)

    assert answer.json().keys() - {"error"} == {"status"}


async def test_operators_learn_the_state_of_each_part() -> None:
    readiness = Readiness(policy=True, audit=True, revision="r")
    routes = telemetry_routes(
        readiness=lambda: readiness, inflight=lambda: 3, draining=lambda: False
    )

    answer = await _get(Starlette(routes=routes), "/status")

    assert answer.json() == {
        "status": "not_ready",
        "ready": False,
        "draining": False,
        "inflight": 3,
        "checks": {"policy": "up", "counters": "down", "audit": "up"},
        "policy_revision": "r",
        "version": __version__,
    }


async def test_the_metadata_name_the_issuers_and_the_scopes() -> None:
    readiness = Readiness(scopes=("mcp:read", "mcp:write"))

    answer = await _ask(
        readiness,
        draining=False,
        path="/.well-known/oauth-protected-resource/mcp",
        authorization_servers=["https://idp.test/realms/a"],
    )

    assert answer.json() == {
        "resource": "https://mcp.test/mcp",
        "resource_name": "Enterprise MCP",
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "RS256", "PS256", "EdDSA"],
        "authorization_servers": ["https://idp.test/realms/a"],
        "scopes_supported": ["mcp:read", "mcp:write"],
    }


async def test_the_metadata_leave_out_what_there_is_none_of() -> None:
    """RFC 9728, section 3.2."""
    answer = await _ask(
        Readiness(), draining=False, path="/.well-known/oauth-protected-resource/mcp"
    )

    assert answer.json().keys() == {
        "resource",
        "resource_name",
        "bearer_methods_supported",
        "dpop_signing_alg_values_supported",
    }


async def _ask(
    readiness: Readiness,
    *,
    draining: bool,
    path: str = "/health/ready",
    authorization_servers: Sequence[str] = (),
) -> httpx2.Response:
    routes = health_routes(
        readiness=lambda: readiness,
        draining=lambda: draining,
        public_origin="https://mcp.test",
        authorization_servers=authorization_servers,
        client_certificates=False,
    )
    return await _get(Starlette(routes=routes), path)


async def _get(app: Starlette, path: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://mcp.test") as http:
        return await http.get(path)
