"""Environment of Alembic; `mcp_server.infrastructure.database.migrate` provides the open connection."""

from __future__ import annotations

from alembic import context


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
    # The caller (migrate) begins and commits the transaction of the connection.
    with context.begin_transaction():
        context.run_migrations()


_run()
