"""The schema on a real PostgreSQL: made once, by anyone, and what each role may do with it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from mcp_server.infrastructure.database import DatabaseUnavailable, connect
from mcp_server.infrastructure.database.migrate import MigrationFailed, upgrade
from mcp_server.settings import DatabaseSettings
from tests.integration.servers import PostgresServer

pytestmark = pytest.mark.anyio

_INSERT = """
    INSERT INTO audit.events (time, event_id, request_id, phase, node, transport, method)
    VALUES ($1, $2, 'r', 'outcome', 'mcp1', 'mcp', 'tools/call')
"""


async def _upgrade(postgres: PostgresServer, settings: DatabaseSettings) -> list[str]:
    return await upgrade(settings, user=postgres.owner, password=postgres.owner_password)


def _partition(day: datetime) -> str:
    return f"events_{day:%Y%m%d}"


async def _partitions(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
        "WHERE inhparent = 'audit.events'::regclass ORDER BY 1"
    )
    return [row["name"].removeprefix("audit.") for row in rows]


async def _maintain(
    connection: asyncpg.Connection, retention: int, ahead: int
) -> dict[str, object]:
    answer = await connection.fetchval("SELECT audit.maintain($1, $2)", retention, ahead)
    report = json.loads(answer)
    assert isinstance(report, dict)
    return report


async def test_the_second_upgrade_has_nothing_to_do(
    postgres: PostgresServer, empty_database: DatabaseSettings
) -> None:
    first = await _upgrade(postgres, empty_database)
    second = await _upgrade(postgres, empty_database)

    assert first[0] == "0001"
    assert second == []


async def test_upgrades_at_the_same_time_take_turns(
    postgres: PostgresServer, empty_database: DatabaseSettings
) -> None:
    results = await asyncio.gather(*(_upgrade(postgres, empty_database) for _ in range(3)))

    assert sorted(len(applied) > 0 for applied in results) == [False, False, True]


async def test_an_upgrade_by_a_role_without_the_right_names_what_was_refused(
    postgres: PostgresServer, empty_database: DatabaseSettings
) -> None:
    with pytest.raises(MigrationFailed, match="permission denied"):
        await upgrade(empty_database, user=postgres.server_role, password=postgres.server_password)


async def test_an_upgrade_with_a_wrong_password_says_so(
    postgres: PostgresServer, empty_database: DatabaseSettings
) -> None:
    with pytest.raises(DatabaseUnavailable, match="password authentication failed"):
        await upgrade(empty_database, user=postgres.owner, password="wrong")


async def test_the_audit_log_is_partitioned_for_today_and_seven_days(
    owner: asyncpg.Connection,
) -> None:
    today = datetime.now(UTC)

    partitions = await _partitions(owner)

    expected = [_partition(today + timedelta(days=ahead)) for ahead in range(8)]
    assert partitions == [*expected, "events_default"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.events SET outcome = 'ok'",
        "DELETE FROM audit.events",
        "TRUNCATE audit.events",
        "DELETE FROM audit.events_default",
        "DROP TABLE audit.events",
        "ALTER TABLE audit.events ADD COLUMN x int",
        "SELECT audit.maintain(1, 1)",
        "SELECT question FROM audit.questions",
        "CREATE TABLE audit.mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "INSERT INTO cmdb.assets (tenant, id, name) VALUES ('a', 'x', 'x')",
        "UPDATE cmdb.assets SET tenant = 'b'",
        "DELETE FROM cmdb.assets",
        "ALTER TABLE cmdb.assets DISABLE ROW LEVEL SECURITY",
        "UPDATE cmdb.assets SET version = 7",
        "UPDATE cmdb.changes SET reason = ''",
        "DELETE FROM cmdb.changes",
        "TRUNCATE cmdb.changes",
        "ALTER TABLE cmdb.changes DISABLE TRIGGER refuse_rewriting",
        "INSERT INTO cmdb.relations (tenant, from_id, to_id, type) VALUES ('a', 'x', 'y', 't')",
        "UPDATE configuration.schema_version SET version_num = '0'",
    ],
)
async def test_the_server_is_refused_what_it_need_not_do(
    server_role: asyncpg.Connection, statement: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server_role.execute(statement)


async def test_the_server_has_exactly_the_privileges_it_needs(owner: asyncpg.Connection) -> None:
    tables = await owner.fetch(
        """
        SELECT table_schema || '.' || table_name, privilege_type, '*'
        FROM information_schema.table_privileges WHERE grantee IN ('mcp_server', 'PUBLIC')
            AND table_schema NOT IN ('pg_catalog', 'information_schema')
        UNION ALL
        SELECT table_schema || '.' || table_name, privilege_type, column_name
        FROM information_schema.column_privileges AS of_column
        WHERE grantee IN ('mcp_server', 'PUBLIC')
            AND table_schema NOT IN ('pg_catalog', 'information_schema')
            AND NOT EXISTS (
                SELECT FROM information_schema.table_privileges AS of_table
                WHERE (of_table.table_schema, of_table.table_name, of_table.privilege_type)
                    = (of_column.table_schema, of_column.table_name, of_column.privilege_type)
                AND of_table.grantee = of_column.grantee)
        """
    )
    functions = await owner.fetch(
        """
        SELECT pg_proc.oid::regprocedure::text FROM pg_proc
        WHERE pronamespace IN ('audit'::regnamespace, 'cmdb'::regnamespace)
            AND has_function_privilege('mcp_server', pg_proc.oid, 'EXECUTE')
        """
    )

    assert sorted(map(tuple, tables)) == [
        ("audit.events", "INSERT", "*"),
        ("audit.events", "SELECT", "*"),
        ("cmdb.assets", "SELECT", "*"),
        ("cmdb.assets", "UPDATE", "last_updated"),
        ("cmdb.assets", "UPDATE", "status"),
        ("cmdb.changes", "INSERT", "*"),
        ("cmdb.changes", "SELECT", "*"),
        ("cmdb.relations", "SELECT", "*"),
        ("configuration.schema_version", "SELECT", "*"),
        ("idempotency.requests", "DELETE", "*"),
        ("idempotency.requests", "INSERT", "*"),
        ("idempotency.requests", "SELECT", "*"),
        ("idempotency.requests", "UPDATE", "answer"),
        ("idempotency.requests", "UPDATE", "expires_at"),
        ("identity.api_keys", "SELECT", "*"),
        ("identity.api_keys", "UPDATE", "last_used_at"),
        ("identity.revocations", "SELECT", "*"),
    ]
    assert functions == []


async def test_the_server_can_become_nobody_else_and_passes_no_row_level_security(
    owner: asyncpg.Connection,
) -> None:
    role = await owner.fetchrow(
        "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, "
        "(SELECT count(*) FROM pg_auth_members WHERE member = pg_roles.oid) AS memberships, "
        "(SELECT count(*) FROM pg_class WHERE relowner = pg_roles.oid) AS tables "
        "FROM pg_roles WHERE rolname = 'mcp_server'"
    )

    assert not any(dict(role).values()), dict(role)


async def test_every_table_of_the_cmdb_is_separated_by_tenant_for_its_owner_too(
    owner: asyncpg.Connection,
) -> None:
    tables = await owner.fetch(
        "SELECT relname, relrowsecurity AND relforcerowsecurity AS separated, "
        "(SELECT array_agg(polname::text) FROM pg_policy WHERE polrelid = pg_class.oid) AS rules "
        "FROM pg_class WHERE relnamespace = 'cmdb'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') "
        "ORDER BY relname"
    )

    assert [tuple(table) for table in tables] == [
        (name, True, ["tenant"]) for name in ("assets", "changes", "relations")
    ]


async def test_the_server_inserts_and_reads_audit_rows(server_role: asyncpg.Connection) -> None:
    event = uuid4()

    await server_role.execute(_INSERT, datetime.now(UTC), event)

    assert await server_role.fetchval("SELECT event_id FROM audit.events") == event


async def test_maintenance_drops_days_beyond_the_retention_and_makes_coming_ones(
    owner: asyncpg.Connection,
) -> None:
    now = datetime.now(UTC)
    for age in (5, 4, 3, 2):
        await owner.execute(_INSERT, now - timedelta(days=age), uuid4())
    made = await _maintain(owner, 90, 9)

    report = await _maintain(owner, 3, 9)

    # The rows lay in the default partition and were moved to partitions of their own first.
    old = [_partition(now - timedelta(days=age)) for age in (5, 4, 3, 2)]
    assert made["created"] == [*old, _partition(now + timedelta(8)), _partition(now + timedelta(9))]
    assert report == {"created": [], "dropped": old[:2], "skipped": [], "expired_rows": 0}
    assert await owner.fetchval("SELECT count(*) FROM audit.events") == 2
    assert await owner.fetchval("SELECT count(*) FROM audit.events_default") == 0


async def test_maintenance_removes_expired_rows_of_the_default_partition(
    owner: asyncpg.Connection,
) -> None:
    await owner.execute(_INSERT, datetime.now(UTC) - timedelta(days=91), uuid4())

    report = await _maintain(owner, 90, 7)

    assert report["expired_rows"] == 1
    assert await owner.fetchval("SELECT count(*) FROM audit.events") == 0


async def test_partitions_made_by_the_administrator_belong_to_the_owner(
    postgres: PostgresServer, database_settings: DatabaseSettings
) -> None:
    postgres.psql("SELECT audit.maintain(90, 10)", database=database_settings.name)

    owners = postgres.psql(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'audit'",
        database=database_settings.name,
    )
    assert owners == postgres.owner


async def test_maintenance_skips_a_partition_in_use_and_does_not_block_the_server(
    owner: asyncpg.Connection,
    server_role: asyncpg.Connection,
    database_settings: DatabaseSettings,
    postgres: PostgresServer,
) -> None:
    old = datetime.now(UTC) - timedelta(days=5)
    await owner.execute(_INSERT, old, uuid4())
    await _maintain(owner, 90, 7)
    reader = await connect(database_settings)
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("SELECT count(*) FROM audit.events")

    maintenance = await asyncio.create_subprocess_exec(
        *("psql", "-XqAt", "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "postgres"),
        *("-d", database_settings.name, "-c", "SELECT audit.maintain(1, 7)->'skipped'"),
        env={"PGPASSWORD": postgres.superuser_password, "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
    )
    await asyncio.sleep(0.2)
    # The report is still being read, so that an insert behind a lock for it would never end.
    await server_role.execute(_INSERT, datetime.now(UTC), uuid4(), timeout=60)
    skipped, _ = await maintenance.communicate()
    await transaction.rollback()
    await reader.close()

    assert json.loads(skipped) == [_partition(old)]
    limits = await owner.fetchval("SELECT proconfig FROM pg_proc WHERE proname = 'maintain'")
    assert "lock_timeout=2s" in limits


@pytest.mark.parametrize(("retention", "ahead"), [(0, 7), (-1, 7), (90, 0), (None, 7)])
async def test_maintenance_refuses_figures_that_would_empty_the_log(
    owner: asyncpg.Connection, retention: int | None, ahead: int
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="must be 1 or more"):
        await owner.fetchval("SELECT audit.maintain($1, $2)", retention, ahead)
