"""What Alembic runs: `mcp_server.migrate` gives it the open connection."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

# Chosen once, shared with nothing else in the database.
_LOCK = 5_402_216_081_114_237_001


def _run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError("run migrations with `mcpctl db upgrade`: no connection was given")
    context.configure(
        connection=connection,
        version_table="schema_version",
        version_table_schema="configuration",
        on_version_apply=context.config.attributes["on_version_apply"],
    )
    with context.begin_transaction():
        # Two deployments at once: the second waits here, then finds nothing to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS configuration"))
        context.run_migrations()


_run()
