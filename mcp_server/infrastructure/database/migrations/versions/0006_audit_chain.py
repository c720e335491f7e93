"""The audit log: chains of rows, outcomes that name their intent, and digests of results.

Compatible with the previous version of the server, whose rows have null in the new columns. To add a
column that may be null rewrites no table.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

_COLUMNS = (
    "ALTER TABLE audit.events ADD COLUMN intent_id uuid",
    "ALTER TABLE audit.events ADD COLUMN result_sha256 bytea",
    "ALTER TABLE audit.events ADD COLUMN result_bytes bigint",
    "ALTER TABLE audit.events ADD COLUMN chain uuid",
    "ALTER TABLE audit.events ADD COLUMN seq bigint",
    "ALTER TABLE audit.events ADD COLUMN hash bytea",
    "COMMENT ON COLUMN audit.events.intent_id IS 'Of an outcome: the event_id of its intent'",
    "COMMENT ON COLUMN audit.events.hash IS 'SHA-256 of the hash of the row before it and this row'",
    # Few rows: changes alone have an intent.
    "CREATE INDEX events_intent_idx ON audit.events (time) WHERE phase = 'intent'",
    "CREATE INDEX events_intent_id_idx ON audit.events (intent_id) WHERE intent_id IS NOT NULL",
)


def upgrade() -> None:
    """Change the table audit.events."""
    for statement in _COLUMNS:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations go forward only; restore a backup instead."""
    raise NotImplementedError("migrations go forward only")
