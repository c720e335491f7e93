"""The role mcp_auditor reads the audit log (`mcpctl audit`), and nothing else.

The role may be absent: a database outside of this installation has it only if its administrator made it.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

_GRANTS = """
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mcp_auditor') THEN
            GRANT USAGE ON SCHEMA audit TO mcp_auditor;
            GRANT SELECT ON audit.events, audit.questions TO mcp_auditor;
        END IF;
    END
    $$
"""


def upgrade() -> None:
    """Grant the role what it needs."""
    op.execute(_GRANTS)


def downgrade() -> None:
    """Refuse: migrations go forward only; restore a backup instead."""
    raise NotImplementedError("migrations go forward only")
