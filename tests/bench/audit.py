"""Figures of the audit log: cost of the chain, one user's day, export, verification.

Run: python -m tests.bench.audit [ROWS]; it prints, and needs PostgreSQL's programs as the tests do.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from mcp_server.audit import AuditRecord, AuditStore, Phase
from mcp_server.audit.chain import Chains
from mcp_server.audit.formats import FORMATS
from mcp_server.audit.search import Filter, stream
from mcp_server.audit.verify import verify
from mcp_server.infrastructure.database import Database, connect
from mcp_server.infrastructure.database.migrate import upgrade
from mcp_server.redaction import redact_arguments
from tests.integration.servers import Authority, PostgresServer

_CHAINED = 100_000
_USERS = 1000
_FILL = f"""
    INSERT INTO audit.events (time, event_id, request_id, phase, node, transport, method, user_id,
        tenant, tool, arguments, effect, outcome, client_ip, reasons, duration_ms)
    SELECT $1::timestamptz - make_interval(secs => n * 86400.0 * 10 / $2), gen_random_uuid(),
        md5(n::text),
        'outcome', 'mcp1', 'mcp', 'tools/call', 'user-' || (n * 7919 % {_USERS}), 'default',
        'cmdb:query_assets', '{{"limit": 10}}', 'allow', 'ok', '198.51.100.7', '[]', 1.5
    FROM generate_series($3::bigint, $4::bigint) AS n
"""


def _record() -> AuditRecord:
    return AuditRecord(
        time=datetime.now(UTC),
        event_id=uuid4(),
        request_id=uuid4().hex,
        phase=Phase.OUTCOME,
        node="mcp1",
        transport="mcp",
        method="tools/call",
        user_id="alice",
        tenant="default",
        tool="cmdb:query_assets",
        arguments=redact_arguments({"limit": 10, "status": "active"}),
        client_ip=ip_address("10.0.0.1"),
        user_agent="agent",
        effect="allow",
        policy_revision="0" * 40,
        duration_ms=12.5,
        outcome="ok",
        judged=redact_arguments(
            {
                "time": "2026-11-30T08:00:00Z",
                "subject": {"issuer": "shared-secret", "jti": uuid4().hex, "roles": ["a", "b"]},
                "resource": {"type": "tool", "id": "cmdb:query_assets", "properties": {}},
                "withheld": [],
            }
        ),
    )


def _say(what: str, figure: float, unit: str) -> None:
    sys.stdout.write(f"{what:60} {figure:12.1f} {unit}\n")
    sys.stdout.flush()


def _chain_cost() -> None:
    rows = [_record().row() for _ in range(2000)]
    best = float("inf")
    for _ in range(10):
        started = time.process_time()
        Chains().link(rows)
        best = min(best, time.process_time() - started)
    _say("chain: CPU of a row", best / len(rows) * 1e6, "us")


async def _timed(coroutine: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = await coroutine
    return time.perf_counter() - started, result


async def _all(connection: asyncpg.Connection, which: Filter, limit: int | None = None) -> int:
    line, number = FORMATS["json"].line, 0
    async for row in stream(connection, which, limit=limit):
        line(row)
        number += 1
    return number


async def _measure(postgres: PostgresServer, rows: int) -> None:
    settings = postgres.settings("bench", timeout_s=120)
    await upgrade(settings, user=postgres.owner, password=postgres.owner_password)
    owner = await connect(
        settings,
        user=postgres.owner,
        password=postgres.owner_password,
        statement_timeout_s=3600,
    )
    database = Database(settings)
    await database.start()
    store = AuditStore(database)
    await store.start()
    records = [_record() for _ in range(_CHAINED)]
    started = time.perf_counter()
    for begin in range(0, _CHAINED, 2000):
        await asyncio.gather(*(store.commit(each) for each in records[begin : begin + 2000]))
    _say(f"write: {_CHAINED} chained rows", time.perf_counter() - started, "s")
    await store.stop()
    await database.stop()
    took, report = await _timed(verify(owner, [], retention_days=90))
    assert report.findings == []
    _say(f"verify: {report.rows} rows", took, "s")

    newest = datetime.now(UTC) - timedelta(days=1)
    for begin in range(0, rows, 500_000):
        await owner.execute(_FILL, newest, rows, begin, min(begin + 500_000, rows) - 1)
    await owner.fetchval("SELECT audit.maintain(90, 7)")
    await owner.execute("ANALYZE audit.events")
    day = newest - timedelta(days=5)
    which = Filter(user="user-7", since=day, until=day + timedelta(days=1))
    took, found = await _timed(_all(owner, which))
    _say(f"search: one user's day, first time ({found} of {rows} rows)", took * 1e3, "ms")
    took, found = await _timed(_all(owner, which))
    _say(f"search: one user's day, again ({found} of {rows} rows)", took * 1e3, "ms")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    number = min(rows, 1_000_000)
    took, found = await _timed(_all(owner, Filter(until=newest), limit=number))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    _say(f"export: {found} rows", took, "s")
    _say(f"export: memory added by {found} rows", grown / 1024, "MB")
    await owner.close()


def main() -> None:
    """Print the figures; the number of rows that are searched is the argument (default 2,000,000)."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    _chain_cost()
    with tempfile.TemporaryDirectory(prefix="emcp-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "tls").mkdir()
        postgres = PostgresServer(Path(folder) / "postgres", Authority(Path(folder) / "tls"))
        postgres.start()
        try:
            postgres.create_roles()
            postgres.create_database("bench")
            asyncio.run(_measure(postgres, rows))
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
