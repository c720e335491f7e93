"""The embedded CMDB on a real PostgreSQL: import, search, and one tenant's data for that tenant."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from mcp_server.cli.cmdb_import import Counts
from mcp_server.infrastructure.database import Database
from mcp_server.settings import DatabaseSettings
from mcp_server.tools.backend import OPEN_S, BackendUnavailable
from mcp_server.tools.cmdb.model import AssetQuery, AssetStatus, StatusChange
from mcp_server.tools.cmdb.postgres import PostgresCmdb
from tests.clocks import Clock
from tests.integration.cmdb_imports import import_rows
from tests.integration.servers import PostgresServer, hasty_database

pytestmark = pytest.mark.anyio


def _row(asset_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": asset_id,
        "name": asset_id,
        "type": "server",
        "environment": "prod",
        "status": "active",
        **changes,
    }


async def _import(
    owner: asyncpg.Connection, *rows: dict[str, Any], dry_run: bool = False
) -> Counts:
    return (await import_rows(owner, rows, dry_run=dry_run)).assets


async def _ids(database: Database, tenant: str, **query: Any) -> list[str]:
    page = await PostgresCmdb(database).query_assets(tenant, AssetQuery(**query), limit=100)
    assert page.total == len(page.items)
    return [item.id for item in page.items]


async def test_an_imported_asset_reads_back(owner: asyncpg.Connection, database: Database) -> None:
    when = datetime(2026, 11, 1, tzinfo=UTC)
    await _import(
        owner,
        _row(
            "db1",
            name="db1.lab.internal",
            type="database",
            environment="staging",
            status="maintenance",
            ip_address="10.91.0.21",
            owner="dba",
            last_updated=when.isoformat(),
            attributes={"version": 17},
        ),
    )

    page = await PostgresCmdb(database).query_assets("default", AssetQuery(), limit=10)

    assert page.model_dump(mode="json") == {
        "items": [
            {
                "id": "db1",
                "name": "db1.lab.internal",
                "type": "database",
                "environment": "staging",
                "status": "maintenance",
                "ip_address": "10.91.0.21",
                "owner": "dba",
                "last_updated": "2026-11-01T00:00:00Z",
                "version": 1,
            }
        ],
        "total": 1,
        "more": False,
    }


async def test_a_tenant_sees_its_own_assets_only(
    owner: asyncpg.Connection, database: Database
) -> None:
    await _import(owner, _row("a", tenant="one"), _row("a", tenant="two"), _row("b", tenant="two"))

    assert await _ids(database, "one") == ["a"]
    assert await _ids(database, "two") == ["a", "b"]
    assert await _ids(database, "three") == []
    assert await _ids(database, "") == []


async def test_the_tenant_does_not_outlive_its_transaction(
    owner: asyncpg.Connection, database: Database
) -> None:
    await _import(owner, _row("a"))
    await _ids(database, "default")

    async with database.connection() as connection:
        left = await connection.fetchval("SELECT count(*) FROM cmdb.assets")

    assert left == 0


TABLES = pytest.mark.parametrize("table", ["assets", "relations", "changes"])


async def _two_tenants(owner: asyncpg.Connection) -> None:
    """Give the tenants `one` and `two` two assets, a relation and two change records each."""
    for tenant in ("one", "two"):
        await import_rows(
            owner,
            [_row("a"), _row("b", type="database")],
            [{"from": "a", "to": "b", "type": "uses"}],
            tenant=tenant,
        )


@TABLES
@pytest.mark.parametrize(
    ("condition", "own"),
    [
        ("", True),
        ("WHERE tenant = 'two'", False),
        ("WHERE tenant <> current_setting('mcp.tenant')", False),
        # Were it evaluated for rows of the other tenant, its failure would tell that they are there.
        ("WHERE 1 / CASE tenant WHEN 'two' THEN 0 ELSE 1 END = 1", True),
    ],
)
async def test_raw_sql_of_the_server_reads_no_row_of_another_tenant(
    owner: asyncpg.Connection,
    server_role: asyncpg.Connection,
    database_settings: DatabaseSettings,
    postgres: PostgresServer,
    table: str,
    condition: str,
    own: bool,
) -> None:
    await _two_tenants(owner)
    there = postgres.psql(
        f"SELECT DISTINCT tenant FROM cmdb.{table} ORDER BY 1", database=database_settings.name
    )
    await server_role.execute("SELECT set_config('mcp.tenant', 'one', false)")

    seen = await server_role.fetch(f"SELECT tenant FROM cmdb.{table} {condition}")

    assert there.split() == ["one", "two"]
    assert {row["tenant"] for row in seen} == ({"one"} if own else set())


@TABLES
@pytest.mark.parametrize("tenant", [None, "", "on", "one ", "ONE", "%", "one,two"])
async def test_raw_sql_of_the_server_reads_nothing_without_an_exact_tenant(
    owner: asyncpg.Connection, server_role: asyncpg.Connection, table: str, tenant: str | None
) -> None:
    await _two_tenants(owner)
    if tenant is not None:
        await server_role.execute("SELECT set_config('mcp.tenant', $1, false)", tenant)

    assert await server_role.fetch(f"TABLE cmdb.{table}") == []


@TABLES
async def test_the_server_cannot_switch_the_separation_off(
    owner: asyncpg.Connection, server_role: asyncpg.Connection, table: str
) -> None:
    await _two_tenants(owner)
    await server_role.execute("SET row_security = off")

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await server_role.fetch(f"TABLE cmdb.{table}")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cmdb.assets SET status = 'inactive' WHERE tenant = 'two'",
        "UPDATE cmdb.assets SET status = 'inactive' WHERE tenant <> 'one'",
        (
            "UPDATE cmdb.assets SET status = 'inactive' FROM cmdb.relations "
            "WHERE assets.id = from_id AND assets.tenant = 'two'"
        ),
    ],
)
async def test_raw_sql_of_the_server_changes_no_row_of_another_tenant(
    owner: asyncpg.Connection, server_role: asyncpg.Connection, statement: str
) -> None:
    await _two_tenants(owner)
    await server_role.execute("SELECT set_config('mcp.tenant', 'one', false)")

    assert await server_role.execute(statement) == "UPDATE 0"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cmdb.changes SET reason = ''",
        "UPDATE cmdb.changes SET tenant = 'one'",
        "DELETE FROM cmdb.changes",
        "TRUNCATE cmdb.changes",
    ],
)
@pytest.mark.parametrize("tenant", ["one", "two"])
async def test_the_server_rewrites_no_history_of_its_tenant_either(
    owner: asyncpg.Connection,
    server_role: asyncpg.Connection,
    database_settings: DatabaseSettings,
    postgres: PostgresServer,
    tenant: str,
    statement: str,
) -> None:
    await _two_tenants(owner)
    everything = (
        "SELECT md5(string_agg(t::text, '|' ORDER BY tenant, change_id)) FROM cmdb.changes t"
    )
    before = postgres.psql(everything, database=database_settings.name)
    await server_role.execute("SELECT set_config('mcp.tenant', $1, false)", tenant)

    with pytest.raises(
        asyncpg.InsufficientPrivilegeError, match="permission denied for table changes"
    ):
        await server_role.execute(statement)

    assert postgres.psql(everything, database=database_settings.name) == before


async def test_without_a_tenant_even_the_owner_sees_nothing(owner: asyncpg.Connection) -> None:
    await _import(owner, _row("a"))

    assert await owner.fetchval("SELECT count(*) FROM cmdb.assets") == 0


async def test_the_owner_cannot_write_rows_of_another_tenant(owner: asyncpg.Connection) -> None:
    await owner.execute("SELECT set_config('mcp.tenant', 'one', false)")

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await owner.execute(
            "INSERT INTO cmdb.assets (tenant, id, name, type, environment, status) "
            "VALUES ('two', 'x', 'x', 'server', 'prod', 'active')"
        )


async def test_the_server_changes_the_status_of_its_tenants_assets_only(
    owner: asyncpg.Connection, database: Database
) -> None:
    await _import(owner, _row("a", tenant="one"), _row("a", tenant="two"))

    async with database.transaction() as connection:
        await connection.execute("SELECT set_config('mcp.tenant', 'one', true)")
        done = await connection.execute("UPDATE cmdb.assets SET status = 'inactive'")

    assert done == "UPDATE 1"
    assert await _ids(database, "two", status=AssetStatus.ACTIVE) == ["a"]


async def test_a_second_import_changes_nothing(owner: asyncpg.Connection) -> None:
    rows = [
        _row("a", ip_address="10.0.0.1", attributes={"b": 1, "a": [1, 2]}),
        _row("b", owner="ops", tenant="two"),
    ]

    first = await _import(owner, *rows)
    second = await _import(owner, *rows)

    assert first == Counts(created=2)
    assert second == Counts(unchanged=2)


async def test_an_import_tells_created_updated_and_unchanged_apart(
    owner: asyncpg.Connection, database: Database
) -> None:
    await _import(owner, _row("a"), _row("b"))

    counts = await _import(owner, _row("a"), _row("b", status="inactive"), _row("c"))

    assert counts == Counts(created=1, updated=1, unchanged=1)
    assert await _ids(database, "default", status=AssetStatus.INACTIVE) == ["b"]


async def test_an_update_moves_last_updated_and_an_unchanged_row_keeps_it(
    owner: asyncpg.Connection, database: Database
) -> None:
    old = datetime(2020, 1, 1, tzinfo=UTC)
    rows = [_row(name, last_updated=old.isoformat()) for name in ("a", "b")]
    await _import(owner, *rows)

    await _import(owner, _row("a"), _row("b", owner="ops"))

    page = await PostgresCmdb(database).query_assets("default", AssetQuery(), limit=10)
    assert [item.last_updated == old for item in page.items] == [True, False]


async def test_a_dry_run_counts_and_writes_nothing(
    owner: asyncpg.Connection, database: Database
) -> None:
    counts = await _import(owner, _row("a"), dry_run=True)

    assert counts == Counts(created=1)
    assert await _ids(database, "default") == []


async def test_the_servers_role_cannot_import(server_role: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await _import(server_role, _row("a"))


@hasty_database
async def test_after_a_freeze_all_idle_connections_are_replaced(
    owner: asyncpg.Connection, database: Database, postgres: PostgresServer
) -> None:
    await _import(owner, _row("a"))
    assert await _ids(database, "default") == ["a"]

    with postgres.paused(), pytest.raises(BackendUnavailable, match="its database does not answer"):
        await _ids(database, "default")

    assert await _ids(database, "default") == ["a"]


async def test_a_frozen_database_is_asked_five_times_and_again_after_a_while(
    owner: asyncpg.Connection,
    database_settings: DatabaseSettings,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await _import(owner, _row("a"))
    clock = Clock(monkeypatch)
    pool = Database(database_settings.model_copy(update={"timeout_s": 1.0}))
    await pool.start()
    backend = PostgresCmdb(pool)

    async def ask() -> int:
        return (await backend.query_assets("default", AssetQuery(), limit=1)).total

    try:
        with postgres.paused():
            for _ in range(5):
                with pytest.raises(BackendUnavailable, match="its database does not answer"):
                    await ask()
            with pytest.raises(BackendUnavailable, match="recent calls failed; next attempt in"):
                await ask()
        found = None
        for _ in range(600):
            clock.forward(OPEN_S + 1)
            with contextlib.suppress(BackendUnavailable):
                found = await ask()
                break
            await asyncio.sleep(0.1)
    finally:
        await pool.stop()

    assert found == 1


async def test_every_update_counts_the_version_whatever_it_says(owner: asyncpg.Connection) -> None:
    await _import(owner, _row("a"))
    await owner.execute("SELECT set_config('mcp.tenant', 'default', false)")

    await owner.execute("UPDATE cmdb.assets SET owner = 'x', version = 99")

    assert await owner.fetchval("SELECT version FROM cmdb.assets") == 2


@pytest.mark.parametrize(
    "statement",
    ["UPDATE cmdb.changes SET reason = ''", "DELETE FROM cmdb.changes", "TRUNCATE cmdb.changes"],
)
async def test_not_even_the_owner_rewrites_the_history(
    owner: asyncpg.Connection, statement: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"cmdb\.changes is a history"):
        await owner.execute(statement)


async def test_the_server_cannot_record_for_another_tenant(
    server_role: asyncpg.Connection,
) -> None:
    await server_role.execute("SELECT set_config('mcp.tenant', 'one', false)")

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await server_role.execute(
            "INSERT INTO cmdb.changes "
            "(tenant, asset_id, user_id, request_id, reason, before, after) "
            "VALUES ('two', 'a', 'u', 'r', '', '{}', '{}')"
        )


async def test_a_change_whose_record_cannot_be_written_is_not_made(
    owner: asyncpg.Connection, database: Database
) -> None:
    await _import(owner, _row("a"))
    await owner.execute("REVOKE INSERT ON cmdb.changes FROM mcp_server")
    change = StatusChange(status=AssetStatus.INACTIVE, reason="r", user="u", request_id="r")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await PostgresCmdb(database).update_status("default", "a", change)

    assert await _ids(database, "default", status=AssetStatus.ACTIVE) == ["a"]
