"""Revoked tokens: of one id, of a user, or of an issuer.

Compatible with the previous version of the server, which does not read them.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"

_REVOCATIONS = (
    # A row revokes the tokens that match every column which is not null. Without a token_id, only those
    # that were issued up to revoked_at.
    """
    CREATE TABLE identity.revocations (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        issuer      text CHECK (issuer <> ''),
        user_id     text CHECK (user_id <> ''),
        token_id    text CHECK (token_id <> ''),
        revoked_at  timestamptz NOT NULL DEFAULT now(),
        expires_at  timestamptz NOT NULL,
        revoked_by  text NOT NULL,
        reason      text NOT NULL,
        CHECK (num_nonnulls(issuer, user_id, token_id) > 0)
    )
    """,
    "CREATE INDEX revocations_expires_at_idx ON identity.revocations (expires_at)",
    "GRANT SELECT ON identity.revocations TO mcp_server",
    """
    COMMENT ON TABLE identity.revocations IS
    'Written by mcpctl token revoke. After expires_at no token that a row revokes is accepted anyway.'
    """,
)


def upgrade() -> None:
    """Create identity.revocations."""
    for statement in _REVOCATIONS:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations go forward only; restore a backup instead."""
    raise NotImplementedError("migrations go forward only")
