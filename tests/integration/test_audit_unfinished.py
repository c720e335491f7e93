"""A killed server: every answer has its row, and each change without an outcome is marked as unknown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from mcp_server.audit import AuditRecord, AuditStore, Phase
from mcp_server.audit.unfinished import Unfinished
from mcp_server.audit.verify import verify
from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.database import Database
from mcp_server.redaction import redact_arguments
from tests.integration.nodes import LegacyClient, McpNode
from tests.integration.servers import RedisServer

pytestmark = pytest.mark.anyio

_CALLS = 1000
_KILLS = 4


@pytest.fixture
async def store(database: Database) -> AsyncIterator[AuditStore]:
    store = AuditStore(database)
    await store.start()
    yield store
    await store.stop()


def _unfinished(database: Database, store: AuditStore) -> Unfinished:
    return Unfinished(
        database, store, node="mcp2", longest_s=lambda tool: 300.0 if tool == "long" else 10.0
    )


async def _intent(store: AuditStore, age_s: float, tool: str = "short") -> UUID:
    record = AuditRecord(
        time=datetime.now(UTC) - timedelta(seconds=age_s),
        event_id=uuid4(),
        request_id="r-1",
        phase=Phase.INTENT,
        node="mcp1",
        transport="mcp",
        method="tools/call",
        user_id="alice",
        tool=tool,
        arguments=redact_arguments({"a": 1}),
        effect="allow",
    )
    await store.commit(record)
    return record.event_id


async def test_an_overdue_intent_gets_the_outcome_unknown_once(
    database: Database, store: AuditStore, server_role: asyncpg.Connection
) -> None:
    intent = await _intent(store, age_s=60)
    counted = telemetry.AUDIT_UNKNOWN._value.get()

    marked = [await _unfinished(database, store).mark() for _ in range(2)]

    assert marked == [1, 0]
    assert telemetry.AUDIT_UNKNOWN._value.get() == counted + 1
    (row,) = await server_role.fetch("SELECT * FROM audit.events WHERE phase = 'outcome'")
    assert (row["outcome"], row["intent_id"], row["node"]) == ("unknown", intent, "mcp2")
    assert (row["request_id"], row["user_id"], row["tool"]) == ("r-1", "alice", "short")
    assert row["arguments"] == '{"a": 1}'
    report = await verify(server_role, [], retention_days=90)
    assert (report.findings, report.rows) == ([], 2)


async def test_an_intent_that_may_still_end_or_that_has_ended_is_left_alone(
    database: Database, store: AuditStore, server_role: asyncpg.Connection
) -> None:
    ended = await _intent(store, age_s=60)
    await _intent(store, age_s=60, tool="long")
    await _intent(store, age_s=5)
    await store.commit(
        AuditRecord(
            time=datetime.now(UTC),
            event_id=uuid4(),
            request_id="r-1",
            phase=Phase.OUTCOME,
            node="mcp1",
            transport="mcp",
            method="tools/call",
            outcome="ok",
            intent_id=ended,
        )
    )

    assert await _unfinished(database, store).mark() == 0


async def test_two_nodes_mark_an_intent_once(
    database: Database, store: AuditStore, server_role: asyncpg.Connection
) -> None:
    for _ in range(5):
        await _intent(store, age_s=60)

    marked = await asyncio.gather(*(_unfinished(database, store).mark() for _ in range(3)))

    assert sum(marked) == 5
    assert await server_role.fetchval("SELECT count(DISTINCT intent_id) FROM audit.events") == 5


async def test_every_answer_of_a_server_that_is_killed_under_load_has_its_row(
    make_node: Callable[..., McpNode],
    redis_server: RedisServer,
    node_owner: asyncpg.Connection,
    assets: None,
) -> None:
    node = make_node("killed")
    answered: list[str] = []
    cut_off = 0

    async def client() -> None:
        nonlocal cut_off
        while len(answered) < _CALLS:
            # Of a user of its own: limits are not what is tested.
            async with node.http(node.token(roles=["mcp:operator"])) as http:
                http.headers["X-Request-ID"] = request_id = uuid4().hex
                try:
                    answer = await _call(LegacyClient(http), len(answered))
                except (httpx2.HTTPError, ValueError):  # killed before, or in, its answer
                    cut_off += 1
                    await asyncio.sleep(0.1)
                else:
                    assert "result" in answer, answer
                    answered.append(request_id)

    clients = [asyncio.create_task(client()) for _ in range(6)]
    for kill in range(_KILLS):
        while len(answered) < _CALLS * (kill + 1) // (_KILLS + 1):
            await asyncio.sleep(0.01)
            assert not any(each.done() for each in clients)
        await asyncio.to_thread(node.kill)
        redis_server.cli("flushall")
        await asyncio.to_thread(node.start)
    await asyncio.gather(*clients)

    assert cut_off >= _KILLS
    rows = await node_owner.fetch(
        "SELECT request_id, phase FROM audit.events WHERE request_id = ANY($1)", answered
    )
    recorded = {row["request_id"] for row in rows if row["phase"] == "outcome"}
    assert set(answered) - recorded == set()
    report = await verify(node_owner, [], retention_days=90)
    assert [finding for finding in report.findings if finding.node == "killed"] == []


async def _call(client: LegacyClient, number: int) -> dict[str, Any]:
    if number % 2:
        return await client.call("cmdb_query_assets", {"limit": 1})
    change = {"asset_id": "db1", "status": "active", "reason": f"change {number} of the test"}
    return await client.call("cmdb_update_asset_status", change)
