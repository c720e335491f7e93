"""PostgreSQL: the pool of connections (`connection`), and the schema (`migrate`, `migrations/`)."""

from mcp_server.infrastructure.database.connection import (
    CommitUnknown,
    Database,
    DatabaseUnavailable,
    commit_refused,
    connect,
)

__all__ = ["CommitUnknown", "Database", "DatabaseUnavailable", "commit_refused", "connect"]
