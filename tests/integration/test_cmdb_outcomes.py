"""What is told of a change of the embedded CMDB whose commit gets no answer: real PostgreSQL.

A deferred trigger is where PostgreSQL is in the middle of a commit: it waits there for the test, ends
the connection, or fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from mcp_server.cli.cmdb_import import Counts, ImportUnknown
from mcp_server.infrastructure.database import Database, connect
from mcp_server.settings import DatabaseSettings
from mcp_server.tools.backend import BackendUnavailable, OutcomeUnknown
from mcp_server.tools.cmdb.model import AssetStatus, StatusChange
from mcp_server.tools.cmdb.postgres import PostgresCmdb
from tests.integration.cmdb_imports import import_rows
from tests.integration.servers import PostgresServer
from tests.integration.wires import Wire

pytestmark = pytest.mark.anyio

A = {"id": "a", "name": "a", "type": "server", "environment": "prod", "status": "active"}
CHANGE = StatusChange(status=AssetStatus.INACTIVE, reason="r", user="u", request_id="r-1")
WAIT = "PERFORM pg_advisory_xact_lock(1)"
END = "PERFORM pg_terminate_backend(pg_backend_pid())"


async def in_commits(owner: asyncpg.Connection, statement: str, *, when: str = "deferred") -> None:
    """Let every change of an asset run a statement of PL/pgSQL, `deferred` to its commit or not."""
    kind = "CONSTRAINT TRIGGER in_commits AFTER" if when == "deferred" else "TRIGGER early BEFORE"
    deferred = "DEFERRABLE INITIALLY DEFERRED" if when == "deferred" else ""
    await owner.execute(
        f"""
        CREATE FUNCTION cmdb.in_commits() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN {statement}; RETURN NEW; END $$;
        CREATE {kind} INSERT OR UPDATE ON cmdb.assets {deferred}
        FOR EACH ROW EXECUTE FUNCTION cmdb.in_commits()
        """
    )


@asynccontextmanager
async def held_commits(owner: asyncpg.Connection) -> AsyncIterator[None]:
    """Let commits wait in `WAIT` for the length of the block, and then for those that did to end."""
    await owner.execute("SELECT pg_advisory_lock(1)")
    try:
        yield
    finally:
        await owner.execute("SELECT pg_advisory_unlock(1)")
    # Whoever waited has the lock first, and until the commit is made.
    await owner.execute("SELECT pg_advisory_lock(1), pg_advisory_unlock(1)")


async def until_a_commit_waits(owner: asyncpg.Connection) -> None:
    """Wait until a session is in the middle of a commit."""
    waiting = (
        "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted)"
    )
    for _ in range(500):
        if await owner.fetchval(waiting):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no session is in a commit")


async def state(database: Database) -> tuple[AssetStatus, int]:
    """Return the asset's status and how many records its history has with the change."""
    backend = PostgresCmdb(database)
    asset = await backend.get_asset("default", "a")
    async with database.transaction() as connection:
        await connection.execute("SELECT set_config('mcp.tenant', 'default', true)")
        records = await connection.fetchval(
            "SELECT count(*) FROM cmdb.changes WHERE request_id = 'r-1'"
        )
    return asset.status, records


@asynccontextmanager
async def by_wire(
    settings: DatabaseSettings, postgres: PostgresServer, *, timeout_s: float = 30
) -> AsyncIterator[tuple[PostgresCmdb, Wire]]:
    """Give a backend whose connections can be cut."""
    async with Wire(postgres.port) as wire:
        pool = Database(settings.model_copy(update={"port": wire.port, "timeout_s": timeout_s}))
        await pool.start()
        try:
            yield PostgresCmdb(pool), wire
        finally:
            await pool.stop()


async def test_a_change_that_was_committed_while_the_connection_broke_is_called_unknown(
    owner: asyncpg.Connection,
    database: Database,
    database_settings: DatabaseSettings,
    postgres: PostgresServer,
) -> None:
    await import_rows(owner, [A])
    await in_commits(owner, WAIT)

    async with by_wire(database_settings, postgres) as (backend, wire), held_commits(owner):
        change = asyncio.create_task(backend.update_status("default", "a", CHANGE))
        await until_a_commit_waits(owner)
        wire.cut()
        with pytest.raises(OutcomeUnknown) as told:
            await change

    assert str(told.value) == (
        "it is not known whether the change was made: CMDB lost its database while it wrote; before you "
        "try again, look with cmdb_get_change_records whether it is recorded"
    )
    assert not told.value.retryable
    assert await state(database) == (AssetStatus.INACTIVE, 1)


async def test_a_change_whose_connection_postgresql_ended_in_the_commit_is_called_unknown(
    owner: asyncpg.Connection, database: Database
) -> None:
    await import_rows(owner, [A])
    await in_commits(owner, END)

    with pytest.raises(OutcomeUnknown) as told:
        await PostgresCmdb(database).update_status("default", "a", CHANGE)

    assert not told.value.retryable
    assert await state(database) == (AssetStatus.ACTIVE, 0)


async def test_a_commit_that_does_not_end_in_time_is_called_unknown(
    owner: asyncpg.Connection,
    database: Database,
    database_settings: DatabaseSettings,
    postgres: PostgresServer,
) -> None:
    await import_rows(owner, [A])
    await in_commits(owner, WAIT)

    async with by_wire(database_settings, postgres, timeout_s=2) as (backend, _):
        async with held_commits(owner):
            with pytest.raises(OutcomeUnknown):
                await backend.update_status("default", "a", CHANGE)
        # The pool works on.
        assert (await backend.get_asset("default", "a")).id == "a"


@pytest.mark.parametrize(
    ("when", "statement"),
    [
        ("deferred", "RAISE 'the disk is full' USING ERRCODE = 'disk_full'"),
        ("at once", END),
    ],
)
async def test_a_change_that_was_not_made_for_certain_may_be_repeated(
    owner: asyncpg.Connection, database: Database, when: str, statement: str
) -> None:
    await import_rows(owner, [A])
    await in_commits(owner, statement, when=when)

    with pytest.raises(BackendUnavailable) as told:
        await PostgresCmdb(database).update_status("default", "a", CHANGE)

    assert told.value.retryable
    assert await state(database) == (AssetStatus.ACTIVE, 0)


async def test_an_import_that_was_committed_while_the_connection_broke_is_called_unknown(
    owner: asyncpg.Connection, database_settings: DatabaseSettings, postgres: PostgresServer
) -> None:
    await in_commits(owner, WAIT)

    async with Wire(postgres.port) as wire:
        importer = await connect(
            database_settings.model_copy(update={"port": wire.port, "timeout_s": 30}),
            user=postgres.owner,
            password=postgres.owner_password,
        )
        async with held_commits(owner):
            started = asyncio.create_task(import_rows(importer, [A]))
            await until_a_commit_waits(owner)
            wire.cut()
            with pytest.raises(ImportUnknown, match="import it again: what is the same"):
                await started

    assert (await import_rows(owner, [A])).assets == Counts(unchanged=1)
