"""Versions of assets, an append-only history of changes, and indexes for both.

Compatible with the previous version of the server: it names the columns that it writes, and the new
columns have defaults or are set by a trigger.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_VERSIONS = (
    "ALTER TABLE cmdb.assets ADD COLUMN version bigint NOT NULL DEFAULT 1 CHECK (version >= 1)",
    # A trigger counts the version for every writer, including older releases of the server. No statement
    # can set the version to another value.
    """
    CREATE FUNCTION cmdb.count_version() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        NEW.version := OLD.version + 1;
        RETURN NEW;
    END
    $$
    """,
    "REVOKE ALL ON FUNCTION cmdb.count_version() FROM PUBLIC",
    """
    CREATE TRIGGER count_version BEFORE UPDATE ON cmdb.assets
    FOR EACH ROW EXECUTE FUNCTION cmdb.count_version()
    """,
)

_HISTORY = (
    # The server's role lacks the privilege anyway. The trigger also stops the owner, and any role
    # that is granted too much later.
    """
    CREATE FUNCTION cmdb.refuse_rewriting() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        RAISE EXCEPTION 'cmdb.changes is a history: % is refused', TG_OP
            USING ERRCODE = 'insufficient_privilege';
    END
    $$
    """,
    "REVOKE ALL ON FUNCTION cmdb.refuse_rewriting() FROM PUBLIC",
    # FOR EACH STATEMENT: refuse also statements whose rows are hidden by row level security.
    """
    CREATE TRIGGER refuse_rewriting BEFORE UPDATE OR DELETE OR TRUNCATE ON cmdb.changes
    FOR EACH STATEMENT EXECUTE FUNCTION cmdb.refuse_rewriting()
    """,
    # Within one asset, ids increase with time and, unlike times, are unique.
    "CREATE INDEX changes_newest_idx ON cmdb.changes (tenant, asset_id, change_id)",
    "DROP INDEX cmdb.changes_asset_idx",
)

_SEARCH = (
    "CREATE INDEX assets_name_idx ON cmdb.assets (tenant, name)",
    "CREATE INDEX assets_owner_idx ON cmdb.assets (tenant, owner)",
)


def upgrade() -> None:
    """Change the schema cmdb."""
    for statement in (*_VERSIONS, *_HISTORY, *_SEARCH):
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations go forward only; restore a backup instead."""
    raise NotImplementedError("migrations go forward only")
