"""The audit log, the CMDB, and the privileges of the server's role."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

_AUDIT = (
    "CREATE SCHEMA audit",
    """
    CREATE TABLE audit.events (
        time            timestamptz NOT NULL,
        event_id        uuid NOT NULL,
        request_id      text NOT NULL,
        phase           text NOT NULL CHECK (phase IN ('intent', 'outcome')),
        node            text NOT NULL,
        transport       text NOT NULL,
        method          text NOT NULL,
        user_id         text,
        tenant          text,
        tool            text,
        arguments       jsonb NOT NULL DEFAULT '{}',
        client_ip       inet,
        user_agent      text,
        effect          text,
        reasons         jsonb NOT NULL DEFAULT '[]',
        policy_revision text,
        duration_ms     double precision,
        outcome         text,
        PRIMARY KEY (time, event_id)
    ) PARTITION BY RANGE (time)
    """,
    "CREATE INDEX events_user_id_time_idx ON audit.events (user_id, time)",
    "CREATE INDEX events_request_id_idx ON audit.events (request_id)",
    # Default partition: holds rows of days without a partition until maintain() moves them.
    "CREATE TABLE audit.events_default PARTITION OF audit.events DEFAULT",
    # SECURITY DEFINER: the partitions must belong to the owner of the schema, while the database's
    # administrator calls the function daily. lock_timeout: maintenance may wait for a long report, but
    # inserts of the server must not queue behind maintenance; the next day's run does the skipped work.
    """
    CREATE FUNCTION audit.maintain(retention_days integer, days_ahead integer) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
    SET lock_timeout = '2s'
    AS $$
    DECLARE
        today date := current_date;
        cutoff date;
        day date;
        partition text;
        created text[] := '{}';
        dropped text[] := '{}';
        skipped text[] := '{}';
        expired bigint;
    BEGIN
        IF retention_days IS NULL OR retention_days < 1 OR days_ahead IS NULL OR days_ahead < 1 THEN
            RAISE EXCEPTION 'audit.maintain: retention_days and days_ahead must be 1 or more'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        cutoff := today - retention_days;
        PERFORM pg_advisory_xact_lock(hashtext('audit.maintain'));

        DELETE FROM audit.events_default WHERE time < cutoff;
        GET DIAGNOSTICS expired = ROW_COUNT;

        FOR day IN
            SELECT today + ahead FROM generate_series(0, days_ahead) AS ahead
            UNION
            SELECT time::date FROM audit.events_default
            ORDER BY 1
        LOOP
            partition := 'events_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(format('audit.%I', partition)) IS NOT NULL;
            BEGIN
                LOCK TABLE audit.events_default IN ACCESS EXCLUSIVE MODE;
                EXECUTE format(
                    'CREATE TABLE audit.%I (LIKE audit.events INCLUDING DEFAULTS '
                    'INCLUDING CONSTRAINTS)', partition);
                EXECUTE format(
                    'WITH moved AS (DELETE FROM audit.events_default '
                    'WHERE time >= %L AND time < %L RETURNING *) '
                    'INSERT INTO audit.%I SELECT * FROM moved', day, day + 1, partition);
                EXECUTE format(
                    'ALTER TABLE audit.events ATTACH PARTITION audit.%I '
                    'FOR VALUES FROM (%L) TO (%L)', partition, day, day + 1);
                created := created || partition;
            EXCEPTION WHEN lock_not_available THEN
                skipped := skipped || partition;
            END;
        END LOOP;

        FOR partition IN
            SELECT child.relname
            FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent = 'audit.events'::regclass
              AND child.relname ~ '^events_[0-9]{8}$'
              AND to_date(substr(child.relname, 8), 'YYYYMMDD') < cutoff
            ORDER BY 1
        LOOP
            BEGIN
                EXECUTE format('DROP TABLE audit.%I', partition);
                dropped := dropped || partition;
            EXCEPTION WHEN lock_not_available THEN
                skipped := skipped || partition;
            END;
        END LOOP;

        RETURN jsonb_build_object(
            'created', created, 'dropped', dropped, 'skipped', skipped, 'expired_rows', expired);
    END
    $$
    """,
    """
    COMMENT ON FUNCTION audit.maintain(integer, integer) IS
    'Makes the partitions of today and the coming days, drops those older than the retention.'
    """,
    "REVOKE ALL ON FUNCTION audit.maintain(integer, integer) FROM PUBLIC",
    "SELECT audit.maintain(90, 7)",
    # Append-only: no UPDATE, DELETE or TRUNCATE, and no privileges on the partitions themselves.
    "GRANT USAGE ON SCHEMA audit TO mcp_server",
    "GRANT SELECT, INSERT ON audit.events TO mcp_server",
)

# Row level security: rows are visible and writable only for the tenant set in the transaction with
# set_config('mcp.tenant', …, true), and not at all if no tenant is set. FORCE applies it to the owner.
_TENANT_RULE = """
    CREATE POLICY tenant ON cmdb.{table}
    USING (tenant = current_setting('mcp.tenant', true))
    WITH CHECK (tenant = current_setting('mcp.tenant', true))
"""

_CMDB = (
    "CREATE SCHEMA cmdb",
    """
    CREATE TABLE cmdb.assets (
        tenant       text NOT NULL CHECK (tenant <> ''),
        id           text NOT NULL CHECK (id <> ''),
        name         text NOT NULL CHECK (name <> ''),
        type         text NOT NULL CHECK (type IN ('server', 'database', 'application')),
        environment  text NOT NULL CHECK (environment IN ('prod', 'staging', 'dev')),
        status       text NOT NULL CHECK (status IN ('active', 'inactive', 'maintenance')),
        ip_address   inet,
        owner        text,
        last_updated timestamptz NOT NULL DEFAULT now(),
        attributes   jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
        PRIMARY KEY (tenant, id)
    )
    """,
    "CREATE INDEX assets_filter_idx ON cmdb.assets (tenant, type, environment, status, id)",
    """
    CREATE TABLE cmdb.relations (
        tenant  text NOT NULL,
        from_id text NOT NULL,
        to_id   text NOT NULL,
        type    text NOT NULL CHECK (type <> ''),
        PRIMARY KEY (tenant, from_id, to_id, type),
        FOREIGN KEY (tenant, from_id) REFERENCES cmdb.assets ON DELETE CASCADE,
        FOREIGN KEY (tenant, to_id) REFERENCES cmdb.assets ON DELETE CASCADE
    )
    """,
    "CREATE INDEX relations_to_idx ON cmdb.relations (tenant, to_id)",
    # No foreign key to assets: the history of an asset outlives it.
    """
    CREATE TABLE cmdb.changes (
        tenant     text NOT NULL CHECK (tenant <> ''),
        change_id  bigint GENERATED ALWAYS AS IDENTITY,
        asset_id   text NOT NULL,
        time       timestamptz NOT NULL DEFAULT now(),
        user_id    text NOT NULL,
        request_id text NOT NULL,
        reason     text NOT NULL,
        before     jsonb NOT NULL,
        after      jsonb NOT NULL,
        PRIMARY KEY (tenant, change_id)
    )
    """,
    "CREATE INDEX changes_asset_idx ON cmdb.changes (tenant, asset_id, time)",
    *(
        statement
        for table in ("assets", "relations", "changes")
        for statement in (
            f"ALTER TABLE cmdb.{table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE cmdb.{table} FORCE ROW LEVEL SECURITY",
            _TENANT_RULE.format(table=table),
        )
    ),
    "GRANT USAGE ON SCHEMA cmdb TO mcp_server",
    "GRANT SELECT ON cmdb.assets, cmdb.relations, cmdb.changes TO mcp_server",
    "GRANT UPDATE (status, last_updated) ON cmdb.assets TO mcp_server",
    "GRANT INSERT ON cmdb.changes TO mcp_server",
)

_CONFIGURATION = (
    "GRANT USAGE ON SCHEMA configuration TO mcp_server",
    "GRANT SELECT ON configuration.schema_version TO mcp_server",
)


def upgrade() -> None:
    """Create the schemas; Ansible has created the roles mcp_owner and mcp_server before."""
    for statement in (*_AUDIT, *_CMDB, *_CONFIGURATION):
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations go forward only; restore a backup instead."""
    raise NotImplementedError("migrations go forward only")
