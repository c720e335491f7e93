"""The embedded CMDB: tables in the schema cmdb, with row level security for each tenant."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from mcp_server.infrastructure.database import CommitUnknown, Database, DatabaseUnavailable
from mcp_server.tools.backend import BackendUnavailable, Guard, OutcomeUnknown
from mcp_server.tools.cmdb.backend import MOST_NODES, NAME, VERIFY_HINT, AssetChanged, AssetNotFound
from mcp_server.tools.cmdb.model import (
    Asset,
    AssetPage,
    AssetQuery,
    ChangePage,
    ChangeRecord,
    Direction,
    Edge,
    Node,
    StatusChange,
    StatusChanged,
    Topology,
)

__all__ = ["PostgresCmdb"]

# No statement compares the tenant: the row level security of the tables does, and shows no rows if no
# tenant is set.
_SELECT = """
    SELECT id, name, type, environment, status, ip_address, owner, last_updated, version
    FROM cmdb.assets
"""
_MATCHES = """
    FROM cmdb.assets
    WHERE ($1::text IS NULL OR type = $1)
      AND ($2::text IS NULL OR environment = $2)
      AND ($3::text IS NULL OR status = $3)
      AND ($4::text IS NULL OR starts_with(name, $4))
      AND ($5::text IS NULL OR owner = $5)
      AND ($6::text IS NULL OR starts_with(id, $6))
"""
_COUNT = f"SELECT count(*) {_MATCHES}"
_PAGE = f"""
    SELECT id, name, type, environment, status, ip_address, owner, last_updated, version {_MATCHES}
      AND ($7::text IS NULL OR id > $7)
    ORDER BY id
    LIMIT $8
"""
_ASSET = f"{_SELECT} WHERE id = $1"

# A row of `walk` is one level: the assets first found at this distance, and all assets found so far in
# this direction. In a cycle, a level finds no new assets, which ends the recursion. Each relation is
# read once for each direction. In a graph of any size, a direction stops at MOST_NODES + 1 assets ($4),
# the nearest ones. array_agg prevents the planner from computing a level again for each reference. IS
# TRUE makes it look up the other ends of relations in a hash table: without statistics, a join would
# compare all pairs.
_TOPOLOGY = """
    WITH RECURSIVE root AS (
        SELECT id FROM cmdb.assets WHERE id = $1
        UNION ALL
        SELECT id FROM cmdb.assets
        WHERE name = $1 AND NOT EXISTS (SELECT FROM cmdb.assets WHERE id = $1)
        ORDER BY id LIMIT $4
    ), walk (way, depth, level, seen) AS (
        SELECT way, 0, ids, ids
        FROM (SELECT array_agg(id) AS ids FROM root) AS first CROSS JOIN unnest($2::text[]) AS way
        WHERE ids IS NOT NULL
        UNION ALL
        SELECT way, depth + 1, next.ids, seen || next.ids
        FROM walk CROSS JOIN LATERAL (
            SELECT array_agg(id) AS ids FROM (
                SELECT to_id AS id FROM cmdb.relations
                WHERE way = 'down' AND from_id = ANY (level)
                UNION
                SELECT from_id FROM cmdb.relations WHERE way = 'up' AND to_id = ANY (level)
                EXCEPT
                SELECT unnest(seen)
                ORDER BY id LIMIT $4 - cardinality(seen)
            ) AS fresh
        ) AS next
        WHERE depth < $3 AND next.ids IS NOT NULL
    ), reached AS (
        SELECT id, min(depth) AS depth FROM walk CROSS JOIN unnest(level) AS id GROUP BY id
    ), shown AS (
        SELECT id, name, type, status, depth
        FROM reached JOIN cmdb.assets USING (id)
        ORDER BY depth, id LIMIT $5
    )
    SELECT
        (SELECT count(*) FROM reached) AS total,
        (SELECT coalesce(jsonb_agg(to_jsonb(shown) ORDER BY depth, id), '[]') FROM shown) AS nodes,
        (SELECT coalesce(jsonb_agg(jsonb_build_object(
                    'from', from_id, 'to', to_id, 'type', relations.type)
                    ORDER BY from_id, to_id, relations.type), '[]')
         FROM cmdb.relations
         WHERE from_id = ANY (ARRAY (SELECT id FROM shown))
           AND (to_id IN (SELECT id FROM shown)) IS TRUE
        ) AS edges
"""
_WAYS = {
    Direction.DOWN: ["down"],
    Direction.UP: ["up"],
    Direction.BOTH: ["down", "up"],
}

_LOCKED = f"{_SELECT} WHERE id = $1 FOR UPDATE"
_SET_STATUS = """
    UPDATE cmdb.assets SET status = $2, last_updated = clock_timestamp() WHERE id = $1
    RETURNING id, name, type, environment, status, ip_address, owner, last_updated, version
"""
# clock_timestamp: the asset is locked here, so the times and ids of its records have the same order.
_RECORD = """
    INSERT INTO cmdb.changes (tenant, asset_id, time, user_id, request_id, reason, before, after)
    VALUES ($1, $2, clock_timestamp(), $3, $4, $5, $6, $7)
    RETURNING change_id
"""
_CHANGES = """
    SELECT change_id AS id, time, user_id AS user, reason, request_id, before, after
    FROM cmdb.changes
    WHERE asset_id = $1 AND time >= $2 AND ($3::bigint IS NULL OR change_id < $3)
    ORDER BY change_id DESC
    LIMIT $4
"""
_COUNT_CHANGES = "SELECT count(*) FROM cmdb.changes WHERE asset_id = $1 AND time >= $2"
_KNOWN = """
    SELECT EXISTS (SELECT FROM cmdb.assets WHERE id = $1)
        OR EXISTS (SELECT FROM cmdb.changes WHERE asset_id = $1)
"""


class PostgresCmdb:
    """A `CmdbBackend` on PostgreSQL.

    Args:
        database: an open pool, which the caller starts and stops. Its role has SELECT on the tables of
            cmdb, UPDATE on the status of assets and INSERT on changes.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = Guard(NAME, timeout_s=database.timeout_s)

    async def start(self) -> None:
        """See `CmdbBackend.start`."""

    async def stop(self) -> None:
        """See `CmdbBackend.stop`."""

    async def query_assets(
        self, tenant: str, query: AssetQuery, *, limit: int, after: str | None = None
    ) -> AssetPage:
        """See `CmdbBackend.query_assets`."""
        filters = (
            query.asset_type,
            query.environment,
            query.status,
            query.name_prefix,
            query.owner,
            query.id_prefix,
        )
        async with self._reading(tenant) as connection:
            total = await connection.fetchval(_COUNT, *filters)
            rows = await connection.fetch(_PAGE, *filters, after, limit + 1)
        return AssetPage(
            items=tuple(_asset(row) for row in rows[:limit]), total=total, more=len(rows) > limit
        )

    async def get_asset(self, tenant: str, asset_id: str) -> Asset:
        """See `CmdbBackend.get_asset`."""
        async with self._reading(tenant) as connection:
            row = await connection.fetchrow(_ASSET, asset_id)
        if row is None:
            raise AssetNotFound(asset_id)
        return _asset(row)

    async def get_topology(
        self, tenant: str, service: str, *, direction: Direction, depth: int, most_nodes: int
    ) -> Topology:
        """See `CmdbBackend.get_topology`."""
        ways = _WAYS[direction]
        async with self._reading(tenant) as connection:
            row = await connection.fetchrow(
                _TOPOLOGY, service, ways, depth, MOST_NODES + 1, min(most_nodes, MOST_NODES)
            )
        if row["total"] == 0:
            raise AssetNotFound(service)
        return Topology(
            nodes=tuple(Node.model_validate(node) for node in json.loads(row["nodes"])),
            edges=tuple(Edge.model_validate(edge) for edge in json.loads(row["edges"])),
            total=row["total"] if row["total"] <= MOST_NODES else None,
        )

    async def update_status(
        self, tenant: str, asset_id: str, change: StatusChange
    ) -> StatusChanged:
        """See `CmdbBackend.update_status`."""
        async with self._writing(tenant) as connection:
            row = await connection.fetchrow(_LOCKED, asset_id)
            if row is None:
                raise AssetNotFound(asset_id)
            before = _asset(row)
            if change.expected_version not in (None, before.version) or (
                change.expected_status not in (None, before.status)
            ):
                raise AssetChanged(before)
            if before.status == change.status:
                return StatusChanged(before=before, after=before, change_id=None)
            after = _asset(await connection.fetchrow(_SET_STATUS, asset_id, change.status))
            change_id = await connection.fetchval(
                _RECORD,
                tenant,
                asset_id,
                change.user,
                change.request_id,
                change.reason,
                before.model_dump_json(),
                after.model_dump_json(),
            )
        return StatusChanged(before=before, after=after, change_id=change_id)

    async def get_changes(
        self,
        tenant: str,
        asset_id: str,
        *,
        since: datetime,
        limit: int,
        before: int | None = None,
    ) -> ChangePage:
        """See `CmdbBackend.get_changes`."""
        async with self._reading(tenant) as connection:
            total = await connection.fetchval(_COUNT_CHANGES, asset_id, since)
            rows = await connection.fetch(_CHANGES, asset_id, since, before, limit + 1)
            if not total and not await connection.fetchval(_KNOWN, asset_id):
                raise AssetNotFound(asset_id)
        return ChangePage(
            items=tuple(_change(row) for row in rows[:limit]), total=total, more=len(rows) > limit
        )

    @asynccontextmanager
    async def _reading(self, tenant: str) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection with a consistent snapshot of the tenant's data."""
        async with self._guard.protect():
            try:
                async with self._database.transaction(
                    readonly=True,
                    isolation="repeatable_read",
                    within_s=self._guard.require_remaining_s(),
                ) as connection:
                    await _enter(connection, tenant)
                    yield connection
            except DatabaseUnavailable as error:
                raise _unavailable() from error

    @asynccontextmanager
    async def _writing(self, tenant: str) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection in a transaction."""
        async with self._guard.protect():
            try:
                within_s = self._guard.require_remaining_s()
                async with self._database.transaction(within_s=within_s) as connection:
                    await _enter(connection, tenant)
                    yield connection
            except CommitUnknown as error:
                raise OutcomeUnknown(
                    NAME, "lost its database while it wrote", verify_hint=VERIFY_HINT
                ) from error
            except DatabaseUnavailable as error:
                raise _unavailable() from error


async def _enter(connection: asyncpg.Connection, tenant: str) -> None:
    await connection.execute("SELECT set_config('mcp.tenant', $1, true)", tenant)


def _unavailable() -> BackendUnavailable:
    # The address of the database, in the cause, is for the operator and not for the caller.
    return BackendUnavailable(NAME, "its database does not answer")


def _asset(row: asyncpg.Record) -> Asset:
    return Asset.model_validate(dict(row))


def _change(row: asyncpg.Record) -> ChangeRecord:
    values: dict[str, Any] = dict(row)
    for side in ("before", "after"):
        values[side] = json.loads(values[side])
    return ChangeRecord.model_validate(values)
