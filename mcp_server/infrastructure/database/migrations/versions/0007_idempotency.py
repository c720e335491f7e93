"""Idempotency keys: requests that the server executes once, with their answers.

The server's role inserts a row, writes its answer once, and deletes rows that have expired; row level
security keeps it from everything else. Compatible with the previous version of the server, which does
not know the schema.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"

_STATEMENTS = (
    "CREATE SCHEMA idempotency",
    # Without an answer: in progress until running_until, then the outcome is unknown.
    """
    CREATE TABLE idempotency.requests (
        issuer        text NOT NULL,
        tenant        text NOT NULL,
        user_id       text NOT NULL,
        key           text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
        request_hash  bytea NOT NULL CHECK (octet_length(request_hash) = 32),
        node          text NOT NULL,
        running_until timestamptz NOT NULL,
        answer        text,
        created_at    timestamptz NOT NULL DEFAULT now(),
        expires_at    timestamptz NOT NULL,
        PRIMARY KEY (issuer, tenant, user_id, key)
    )
    """,
    "CREATE INDEX requests_expires_at_idx ON idempotency.requests (expires_at)",
    "GRANT USAGE ON SCHEMA idempotency TO mcp_server",
    "GRANT SELECT, INSERT, DELETE ON idempotency.requests TO mcp_server",
    "GRANT UPDATE (answer, expires_at) ON idempotency.requests TO mcp_server",
    "ALTER TABLE idempotency.requests ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY read_all ON idempotency.requests FOR SELECT TO mcp_server USING (true)",
    "CREATE POLICY insert_all ON idempotency.requests FOR INSERT TO mcp_server WITH CHECK (true)",
    """
    CREATE POLICY answer_once ON idempotency.requests FOR UPDATE TO mcp_server
    USING (answer IS NULL) WITH CHECK (true)
    """,
    """
    CREATE POLICY delete_expired ON idempotency.requests FOR DELETE TO mcp_server
    USING (expires_at <= now())
    """,
)


def upgrade() -> None:
    """Create the schema idempotency."""
    for statement in _STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations go forward only; restore a backup instead."""
    raise NotImplementedError("migrations go forward only")
