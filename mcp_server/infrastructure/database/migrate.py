"""Migrates the database to the schema that this version of the server needs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from mcp_server.infrastructure.database import connect
from mcp_server.settings import DatabaseSettings

__all__ = ["MigrationFailed", "upgrade"]

_SCRIPTS = Path(__file__).parent / "migrations"
_DEADLINE_S = 300.0
# Key of the advisory lock; arbitrary, and used for nothing else in the database.
_LOCK = 5_402_216_081_114_237_001


class MigrationFailed(Exception):
    """The schema is unchanged; the message is PostgreSQL's."""


async def upgrade(
    settings: DatabaseSettings, *, user: str, password: str | None, deadline_s: float = _DEADLINE_S
) -> list[str]:
    """Apply the missing revisions in one transaction.

    Safe to repeat, and to run on several hosts at once: an advisory lock serializes the runs.

    Args:
        settings: address of the database.
        user: the role that owns the database (`mcp_owner`).
        password: its password.
        deadline_s: seconds for the whole call, including the wait for another run.

    Returns:
        The applied revisions, oldest first; empty if the schema was up to date.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be reached.
        MigrationFailed: PostgreSQL refused a statement, or the deadline passed.
    """
    applied: list[str] = []

    async def open_connection() -> asyncpg.Connection:
        return await connect(settings, user=user, password=password, statement_timeout_s=deadline_s)

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=open_connection, poolclass=NullPool
    )
    try:
        async with asyncio.timeout(deadline_s), engine.begin() as connection:
            # With two concurrent deployments, the second one waits here and then finds nothing to apply.
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await connection.execute(text("CREATE SCHEMA IF NOT EXISTS configuration"))
            await connection.run_sync(_upgrade, applied)
    except TimeoutError:
        raise MigrationFailed(
            f"no end after {deadline_s:g} s: is another upgrade running, or a long transaction?"
        ) from None
    except DBAPIError as error:
        raise MigrationFailed(f"PostgreSQL refused a migration: {error.orig}") from error
    finally:
        await engine.dispose()
    return applied


def _upgrade(connection: Connection, applied: list[str]) -> None:
    def note(*, step: Any, **_: Any) -> None:
        applied.append(step.up_revision_id)

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["on_version_apply"] = note
    command.upgrade(config, "head")
