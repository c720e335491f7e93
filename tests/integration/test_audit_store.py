"""The audit log on a real PostgreSQL: nothing is answered before it is committed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from mcp_server.audit import (
    AuditReason,
    AuditRecord,
    AuditStore,
    AuditUnavailable,
    Phase,
)
from mcp_server.audit.record import COLUMNS
from mcp_server.infrastructure.database import Database
from mcp_server.redaction import redact_arguments
from mcp_server.settings import DatabaseSettings
from tests.integration.servers import PostgresServer, answers, hasty_database

pytestmark = pytest.mark.anyio


def _record(**changes: Any) -> AuditRecord:
    values: dict[str, Any] = {
        "time": datetime.now(UTC),
        "event_id": uuid4(),
        "request_id": "r-1",
        "phase": Phase.OUTCOME,
        "node": "mcp1",
        "transport": "mcp",
        "method": "tools/call",
    }
    return AuditRecord(**(values | changes))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 (states of servers have no event to wait for)
            await asyncio.sleep(0.05)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[AuditStore]:
    store = AuditStore(database)
    await store.start()
    yield store
    await store.stop()


async def test_a_committed_record_reads_back_as_it_was(
    store: AuditStore, server_role: asyncpg.Connection
) -> None:
    record = _record(
        user_id="alice",
        tenant="default",
        tool="cmdb:query_assets",
        arguments=redact_arguments({"status": "active", "api_key": "hunter2", "text": "ä\0\ud800"}),
        client_ip=ip_address("2001:db8::1"),
        user_agent="test",
        effect="deny",
        reasons=[AuditReason(code="not_available", message="no", rule="r", solution="s")],
        policy_revision="abc",
        duration_ms=1.5,
        outcome="denied",
        judged=redact_arguments({"roles": ["mcp:viewer"], "groups": ["token=abcdefgh"]}),
        result_sha256=hashlib.sha256(b"result").digest(),
        result_bytes=6,
    )

    await store.commit(record)

    row = dict(await server_role.fetchrow(f"SELECT {', '.join(COLUMNS)} FROM audit.events"))
    assert json.loads(row.pop("arguments")) == {
        "status": "active",
        "api_key": "[redacted]",
        "text": "ä\ufffd\ufffd",
    }
    assert json.loads(row.pop("reasons")) == [
        {"code": "not_available", "message": "no", "rule": "r", "solution": "s"}
    ]
    assert json.loads(row.pop("judged")) == {
        "roles": ["mcp:viewer"],
        "groups": ["token=[redacted]"],
    }
    assert row == {
        "time": record.time,
        "event_id": record.event_id,
        "request_id": "r-1",
        "phase": "outcome",
        "node": "mcp1",
        "transport": "mcp",
        "method": "tools/call",
        "user_id": "alice",
        "tenant": "default",
        "tool": "cmdb:query_assets",
        "client_ip": ip_address("2001:db8::1"),
        "user_agent": "test",
        "effect": "deny",
        "policy_revision": "abc",
        "duration_ms": 1.5,
        "outcome": "denied",
        "intent_id": None,
        "result_sha256": hashlib.sha256(b"result").digest(),
        "result_bytes": 6,
    }


async def test_records_of_concurrent_calls_share_transactions(
    store: AuditStore, server_role: asyncpg.Connection
) -> None:
    await asyncio.gather(*(store.commit(_record()) for _ in range(200)))

    rows, transactions = await server_role.fetchrow(
        "SELECT count(*), count(DISTINCT xmin::text) FROM audit.events"
    )
    assert rows == 200
    assert transactions <= 10


async def test_commit_returns_only_when_others_can_see_the_row(
    store: AuditStore, server_role: asyncpg.Connection
) -> None:
    for _ in range(20):
        record = _record()
        await store.commit(record)
        found = await server_role.fetchval(
            "SELECT true FROM audit.events WHERE event_id = $1", record.event_id
        )
        assert found


async def test_a_record_that_postgresql_refuses_does_not_take_others_with_it(
    store: AuditStore, server_role: asyncpg.Connection
) -> None:
    twin = _record()
    await store.commit(twin)

    results = await asyncio.gather(
        *(store.commit(_record()) for _ in range(5)), store.commit(twin), return_exceptions=True
    )

    assert [type(result) for result in results] == [type(None)] * 5 + [AuditUnavailable]
    assert await server_role.fetchval("SELECT count(*) FROM audit.events") == 6
    assert store.healthy


async def test_the_record_of_a_cancelled_call_is_written(
    store: AuditStore, server_role: asyncpg.Connection
) -> None:
    call = asyncio.create_task(store.commit(_record()))
    await asyncio.sleep(0)

    call.cancel()
    await asyncio.wait([call])
    await store.stop()

    assert await server_role.fetchval("SELECT count(*) FROM audit.events") == 1


async def test_stopping_commits_what_waits_and_refuses_what_comes_later(
    store: AuditStore, server_role: asyncpg.Connection
) -> None:
    waiting = [asyncio.create_task(store.commit(_record())) for _ in range(300)]
    await asyncio.sleep(0)

    await store.stop()
    await asyncio.gather(*waiting)

    assert await server_role.fetchval("SELECT count(*) FROM audit.events") == 300
    with pytest.raises(AuditUnavailable, match="closing"):
        await store.commit(_record())


async def test_a_store_that_was_stopped_starts_again(store: AuditStore) -> None:
    await store.stop()

    await store.start()

    await store.commit(_record())


async def test_without_a_schema_the_store_says_what_to_run(
    empty_database: DatabaseSettings,
) -> None:
    database = Database(empty_database)
    await database.start()
    store = AuditStore(database)
    await store.start()

    with pytest.raises(AuditUnavailable, match=r"mcpctl db upgrade|permission denied"):
        await store.commit(_record())

    assert not store.healthy
    await store.stop()
    await database.stop()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (
            "DROP VIEW audit.questions; ALTER TABLE audit.events DROP COLUMN judged",
            "lacks a table or a column .* run `mcpctl db upgrade`",
        ),
        ("REVOKE INSERT ON audit.events FROM mcp_server", "grant .* INSERT on audit.events"),
        ("REVOKE USAGE ON SCHEMA audit FROM mcp_server", "grant .* USAGE on the schema audit"),
    ],
    ids=["before migration 0003", "no right to insert", "no right to the schema"],
)
async def test_a_log_that_takes_no_records_is_never_healthy_and_says_what_to_do(
    owner: asyncpg.Connection, database: Database, damage: str, told: str
) -> None:
    await owner.execute(damage)
    store = AuditStore(database)
    await store.start()

    assert not store.healthy
    with pytest.raises(AuditUnavailable, match=told):
        await store.commit(_record())
    await store.stop()


async def test_a_database_that_takes_no_writes_is_not_healthy(
    owner: asyncpg.Connection, database: Database
) -> None:
    name = await owner.fetchval("SELECT current_database()")
    await owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store = AuditStore(database)
    await store.start()

    assert not store.healthy
    await store.stop()


async def test_a_stop_of_postgresql_is_noticed_without_any_record(
    store: AuditStore, postgres: PostgresServer
) -> None:
    with postgres.stopped():
        await _until(lambda: not store.healthy)
        started = time.monotonic()
        with pytest.raises(AuditUnavailable):
            await store.commit(_record())
        # At once: had it waited for PostgreSQL, it would have taken the deadline of 20 s.
        assert time.monotonic() - started < 15

    await _until(lambda: store.healthy)
    await store.commit(_record())


async def test_a_crash_of_postgresql_under_load_loses_no_acknowledged_record(
    store: AuditStore, postgres: PostgresServer, database: Database
) -> None:
    acknowledged = []
    refused = 0
    running = True

    async def client() -> None:
        nonlocal refused
        while running:
            record = _record()
            try:
                await store.commit(record)
                acknowledged.append(record.event_id)
            except AuditUnavailable:
                refused += 1
                await asyncio.sleep(0.02)

    clients = [asyncio.create_task(client()) for _ in range(20)]
    await _until(lambda: len(acknowledged) > 100)
    await asyncio.to_thread(postgres.kill)
    await asyncio.to_thread(postgres.start)
    before = len(acknowledged)
    try:
        await _until(lambda: len(acknowledged) > before + 20)
    finally:
        running = False
        await asyncio.gather(*clients)

    assert refused > 0
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT event_id FROM audit.events")
    assert set(acknowledged) <= {row["event_id"] for row in rows}


@hasty_database
async def test_a_frozen_postgresql_costs_a_call_its_deadline_and_the_next_nothing(
    store: AuditStore, postgres: PostgresServer, database_settings: DatabaseSettings
) -> None:
    with postgres.paused():
        started = time.monotonic()
        with pytest.raises(AuditUnavailable):
            await store.commit(_record())
        # One deadline, and what a busy machine adds; a second deadline would be over it.
        assert time.monotonic() - started < database_settings.timeout_s * 1.95
        await _until(lambda: not store.healthy)
        started = time.monotonic()
        with pytest.raises(AuditUnavailable):
            await store.commit(_record())
        # At once: PostgreSQL is not asked.
        assert time.monotonic() - started < database_settings.timeout_s * 0.95

    await _until(lambda: store.healthy)
    await store.commit(_record())


async def test_a_store_started_without_postgresql_works_when_it_comes(
    postgres: PostgresServer, database_settings: DatabaseSettings
) -> None:
    database = Database(database_settings)
    store = AuditStore(database)
    with postgres.stopped():
        await database.start()
        await store.start()
        assert not store.healthy
        assert not await answers(database)
        with pytest.raises(AuditUnavailable, match="refuses connections"):
            await store.commit(_record())

    await _until(lambda: store.healthy)
    await store.commit(_record())
    assert await answers(database)
    await store.stop()
    await database.stop()
