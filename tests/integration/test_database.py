"""The pool on a real PostgreSQL: deadlines, TLS, and what a caller gets to read."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import asyncpg
import pytest

from mcp_server.infrastructure.database import Database, DatabaseUnavailable
from mcp_server.settings import DatabaseSettings
from tests.integration.servers import Authority, answers, hasty_database

pytestmark = pytest.mark.anyio


async def _failure(settings: DatabaseSettings) -> str:
    database = Database(settings)
    await database.start()
    try:
        with pytest.raises(DatabaseUnavailable) as caught:
            async with database.connection():
                pass
    finally:
        await database.stop()
    return str(caught.value)


async def test_a_certificate_of_another_authority_is_refused(
    database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path)

    message = await _failure(database_settings.model_copy(update={"ca": stranger.ca}))

    assert "TLS handshake" in message


async def test_an_address_that_is_not_in_the_certificate_is_refused(
    database_settings: DatabaseSettings,
) -> None:
    message = await _failure(database_settings.model_copy(update={"host": "127.0.0.2"}))

    assert "TLS handshake" in message
    assert "127.0.0.2" in message


async def test_a_connection_without_tls_is_refused_by_the_server(
    database_settings: DatabaseSettings,
) -> None:
    message = await _failure(database_settings.model_copy(update={"ca": None}))

    assert "no encryption" in message


async def test_a_missing_database_is_named(database_settings: DatabaseSettings) -> None:
    message = await _failure(database_settings.model_copy(update={"name": "missing"}))

    assert '"missing" does not exist' in message


@hasty_database
async def test_a_slow_statement_ends_at_the_deadline(database: Database) -> None:
    started = time.monotonic()

    with pytest.raises(DatabaseUnavailable, match="did not answer within 4 s"):
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_sleep(120)")

    assert time.monotonic() - started < 60  # the deadline and not the statement's end
    assert await answers(database)


@hasty_database
async def test_many_short_statements_share_one_deadline(database: Database) -> None:
    started = time.monotonic()

    async def call() -> None:
        async with database.transaction() as connection:
            for _ in range(400):
                await connection.execute("SELECT pg_sleep(0.3)")

    with pytest.raises(DatabaseUnavailable):
        await call()

    assert time.monotonic() - started < 60  # not the 120 s of all statements


async def test_waiting_for_a_connection_ends_at_the_deadline(
    database_settings: DatabaseSettings,
) -> None:
    database = Database(database_settings.model_copy(update={"pool_max": 1, "timeout_s": 4.0}))
    await database.start()

    async with database.connection():
        with pytest.raises(DatabaseUnavailable):
            async with database.connection():
                pass

    assert await answers(database)
    await database.stop()


async def test_a_cancelled_call_gives_its_connection_back(
    database_settings: DatabaseSettings,
) -> None:
    database = Database(database_settings.model_copy(update={"pool_max": 1}))
    await database.start()

    async def call() -> None:
        async with database.transaction() as connection:
            running.set()
            await connection.execute("SELECT pg_sleep(300)")

    running = asyncio.Event()
    task = asyncio.create_task(call())
    await running.wait()
    await asyncio.sleep(
        0.2
    )  # the statement is on its way; before or after, the connection is taken
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await answers(database)
    await database.stop()


async def test_a_fault_of_the_statement_rolls_back_and_is_not_called_unavailable(
    database: Database,
) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with database.transaction() as connection:
            await connection.execute("SELECT 1/0")

    assert await answers(database)


async def test_an_error_of_the_caller_rolls_back(database: Database) -> None:
    async def call() -> None:
        async with database.transaction() as connection:
            await connection.execute(
                "INSERT INTO audit.events (time, event_id, request_id, phase, node, transport, "
                "method) VALUES (now(), gen_random_uuid(), 'r', 'intent', 'n', 'mcp', 'm')"
            )
            raise KeyError

    with pytest.raises(KeyError):
        await call()

    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit.events") == 0


async def test_a_pool_that_is_not_open_says_so(database_settings: DatabaseSettings) -> None:
    with pytest.raises(DatabaseUnavailable, match="not open"):
        async with Database(database_settings).connection():
            pass
