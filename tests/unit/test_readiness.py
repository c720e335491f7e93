"""What is known of a node when looking at its parts goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcp_server.health import readiness
from mcp_server.health.readiness import Monitor
from mcp_server.policy import PolicyUnavailable
from mcp_server.policy.protocol import Canary

pytestmark = pytest.mark.anyio


class _Parts:
    """All parts at once: they are well, but the policy is what the test says."""

    healthy = True

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.revision = "r1"

    async def canary(self) -> Canary:
        if self.fault is not None:
            raise self.fault
        return Canary(
            version=2,
            allow_ok=True,
            deny_ok=True,
            scopes=["mcp:read"],
            initial_scope="mcp:read",
            revision=self.revision,
        )

    async def probe(self) -> bool:
        return True


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def _nothing() -> None:
    return None


async def test_a_look_that_fails_unexpectedly_is_not_ready_and_not_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readiness, "_INTERVAL_S", 0.01)
    parts: Any = _Parts()
    monitor = Monitor(policy=parts, counters=parts, audit=parts, on_new_revision=_nothing)
    await monitor.start()
    assert monitor.latest.ready
    try:
        for fault, ready in ((KeyError("surprise"), False), (None, True)):
            parts.fault = fault
            async with asyncio.timeout(60):
                while monitor.latest.ready != ready:  # noqa: ASYNC110 (it has no event)
                    await asyncio.sleep(0.01)
    finally:
        await monitor.stop()


async def test_a_revision_that_came_while_the_policy_was_away_is_told_once() -> None:
    parts: Any = _Parts()
    away = PolicyUnavailable("away")
    told: list[str] = []

    async def tell() -> None:
        told.append(parts.revision)

    monitor = Monitor(policy=parts, counters=parts, audit=parts, on_new_revision=tell)
    for parts.revision, parts.fault in (
        ("r1", None),
        ("r1", away),
        ("r1", None),  # back with the same
        ("r2", away),
        ("r2", None),
        ("r2", None),
    ):
        await monitor.check()

    assert told == ["r2"]
