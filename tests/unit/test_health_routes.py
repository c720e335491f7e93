"""What the health endpoints answer of a node that is ready, is not, or is stopping."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from mcp_server.health.readiness import Readiness
from mcp_server.health.routes import health_routes

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


async def test_the_parts_that_are_down_are_named() -> None:
    answer = await _ask(Readiness(policy=True, audit=True), draining=False)

    assert answer.json()["checks"] == {"policy": "up", "counters": "down", "audit": "up"}


async def _ask(readiness: Readiness, *, draining: bool) -> httpx2.Response:
    routes = health_routes(
        readiness=lambda: readiness,
        draining=lambda: draining,
        public_origin="https://mcp.test",
        issuer="https://issuer.test",
    )
    transport = httpx2.ASGITransport(app=Starlette(routes=routes))
    async with httpx2.AsyncClient(transport=transport, base_url="https://mcp.test") as http:
        return await http.get("/health/ready")
