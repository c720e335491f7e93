"""Compares an import with the embedded CMDB, and writes the difference."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import asyncpg
from pydantic import BaseModel, ConfigDict

from mcp_server.cli.cmdb_import.records import (
    CmdbImport,
    ImportedAsset,
    InvalidImport,
    PlacedRelation,
)
from mcp_server.infrastructure.database import commit_refused
from mcp_server.tools.cmdb.model import Asset

__all__ = [
    "AssetDifference",
    "Counts",
    "ImportReport",
    "ImportUnknown",
    "report_text",
    "write_import",
]

_FIELDS = ("name", "type", "environment", "status", "ip_address", "owner", "attributes")
"""Fields that an import sets; the other columns of a row follow from them."""

# Imports for one tenant are serialized, so that the compared rows do not change before the write. Row
# level security selects the tenant's rows for each statement.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('cmdb.import'), hashtext($1))"
_ENTER = "SELECT set_config('mcp.tenant', $1, true)"
_SELECT = """
    SELECT id, name, type, environment, status, ip_address, owner, attributes, last_updated, version
    FROM cmdb.assets
    WHERE id = ANY($1::text[])
    ORDER BY id
"""
# Sorted by id, like the statements that change the rows, so that two imports never deadlock.
_LOCKED = f"{_SELECT} FOR UPDATE"
_NEW = """
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::inet[],
                $8::text[], $9::jsonb[], $10::timestamptz[])
         AS new (id, name, type, environment, status, ip_address, owner, attributes, last_updated)
"""
_INSERT = f"""
    INSERT INTO cmdb.assets
        (tenant, id, name, type, environment, status, ip_address, owner, attributes, last_updated)
    SELECT $1, new.id, new.name, new.type, new.environment, new.status, new.ip_address, new.owner,
           new.attributes, coalesce(new.last_updated, now())
    {_NEW}
    RETURNING id, name, type, environment, status, ip_address, owner, attributes, last_updated,
              version
"""
_SET = """
    UPDATE cmdb.assets AS old SET
        name = new.name, type = new.type, environment = new.environment, status = new.status,
        ip_address = new.ip_address, owner = new.owner, attributes = new.attributes,
        last_updated = coalesce(new.last_updated, now())
"""
_UPDATE = f"""
    {_SET} {_NEW}
    WHERE old.tenant = $1 AND old.id = new.id
    RETURNING old.id, old.name, old.type, old.environment, old.status, old.ip_address, old.owner,
              old.attributes, old.last_updated, old.version
"""
# clock_timestamp: the assets are locked here, so the times and ids of records have the same order.
_RECORD = """
    INSERT INTO cmdb.changes (tenant, asset_id, time, user_id, request_id, reason, before, after)
    SELECT $1, asset_id, clock_timestamp(), $2, $3, $4, before, after
    FROM unnest($5::text[], $6::jsonb[], $7::jsonb[]) AS new (asset_id, before, after)
"""
_KNOWN = "SELECT id FROM cmdb.assets WHERE id = ANY($1::text[])"
_KNOWN_LOCKED = f"{_KNOWN} ORDER BY id FOR KEY SHARE"
_RELATE = """
    INSERT INTO cmdb.relations (tenant, from_id, to_id, type)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])
    ON CONFLICT DO NOTHING
    RETURNING from_id, to_id, type
"""
_RELATED = """
    SELECT from_id, to_id, type FROM unnest($1::text[], $2::text[], $3::text[])
        AS new (from_id, to_id, type)
    WHERE NOT EXISTS (
        SELECT FROM cmdb.relations AS old
        WHERE (old.from_id, old.to_id, old.type) = (new.from_id, new.to_id, new.type))
"""


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True)


class Counts(_Report):
    """Number of records by kind of change; relations are never updated."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0


class AssetDifference(_Report):
    """The difference of one asset: old and new values of the changed fields."""

    action: Literal["created", "updated"]
    tenant: str
    id: str
    before: dict[str, Any]
    after: dict[str, Any]


class ImportReport(_Report):
    """Result of an import; after a dry run, the result that it would have."""

    dry_run: bool
    changed: bool
    request_id: str
    assets: Counts
    relations: Counts
    differences: tuple[AssetDifference, ...]
    new_relations: tuple[dict[str, str], ...]


class ImportUnknown(Exception):
    """The connection was lost during the commit; it is safe to repeat the import."""

    def __init__(self, why: Exception) -> None:
        super().__init__(
            "it is not known whether it was imported: the database ended it during the commit "
            f"({str(why) or type(why).__name__}); import it again: what is the same is left alone"
        )


@dataclass(frozen=True)
class _Change:
    """The new state of an asset; a new asset has no `before`."""

    id: str
    before: asyncpg.Record | None
    after: dict[str, Any]
    last_updated: datetime | None


@dataclass(frozen=True)
class _Author:
    user: str
    reason: str
    request_id: str


async def write_import(
    connection: asyncpg.Connection,
    content: CmdbImport,
    *,
    user: str,
    reason: str,
    request_id: str,
    dry_run: bool = False,
) -> ImportReport:
    """Create or update the assets and add the relations, in one transaction; nothing is removed.

    Each created or updated asset gets a change record; an unchanged asset gets none.

    Args:
        connection: connection of a role that may write the tables of cmdb (`mcp_owner`), outside of a
            transaction.
        content: result of `read_sources`.
        user: the user who imports, for the change records.
        reason: reason for the import, for the change records.
        request_id: id that the records of one import share.
        dry_run: only compare, in a read-only transaction.

    Raises:
        InvalidImport: relations name assets that neither the import nor the CMDB contains.
        ImportUnknown: the connection was lost during the commit.
    """
    author = _Author(user, reason, request_id)
    differences: list[AssetDifference] = []
    new_relations: list[dict[str, str]] = []
    faults: list[str] = []
    isolation = {"readonly": True, "isolation": "repeatable_read"} if dry_run else {}
    tenants = {asset.tenant for asset in content.assets} | {
        placed.relation.tenant for placed in content.relations
    }
    committing = False
    try:
        async with connection.transaction(**isolation):
            for tenant in sorted(tenants):
                await connection.execute(_ENTER, tenant)
                if not dry_run:
                    await connection.execute(_LOCK, tenant)
                assets = [asset for asset in content.assets if asset.tenant == tenant]
                relations = [
                    placed for placed in content.relations if placed.relation.tenant == tenant
                ]
                changes = await _changes(connection, assets, lock=not dry_run)
                if not dry_run:
                    await _write(connection, tenant, changes, author)
                differences += [_difference(tenant, change) for change in changes]
                unknown = await _unknown(connection, assets, relations, lock=not dry_run)
                faults += _unknown_ends(relations, unknown)
                if not unknown:
                    new_relations += await _relate(connection, tenant, relations, dry_run=dry_run)
            if faults:
                raise InvalidImport(faults)
            committing = not dry_run
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        if committing and not commit_refused(error):
            raise ImportUnknown(error) from error
        raise
    created = sum(difference.action == "created" for difference in differences)
    return ImportReport(
        dry_run=dry_run,
        changed=bool(differences or new_relations),
        request_id=request_id,
        assets=Counts(
            created=created,
            updated=len(differences) - created,
            unchanged=len(content.assets) - len(differences),
        ),
        relations=Counts(
            created=len(new_relations), unchanged=len(content.relations) - len(new_relations)
        ),
        differences=tuple(differences),
        new_relations=tuple(new_relations),
    )


async def _changes(
    connection: asyncpg.Connection, assets: Sequence[ImportedAsset], *, lock: bool
) -> list[_Change]:
    """Return the new and changed assets, sorted by id."""
    ids = [asset.id for asset in assets]
    rows = {row["id"]: row for row in await connection.fetch(_LOCKED if lock else _SELECT, ids)}
    changes = []
    for asset in sorted(assets, key=lambda asset: asset.id):
        given = asset.model_dump(mode="json")
        row = rows.get(asset.id)
        if row is None:
            after = {name: given[name] for name in _FIELDS}
        else:
            before = _fields(row)
            said = asset.model_fields_set
            after = {name: given[name] if name in said else before[name] for name in _FIELDS}
            if after == before:
                continue
        changes.append(_Change(asset.id, row, after, asset.last_updated))
    return changes


async def _write(
    connection: asyncpg.Connection, tenant: str, changes: Sequence[_Change], author: _Author
) -> None:
    rows: list[asyncpg.Record] = []
    for statement, some in (
        (_INSERT, [change for change in changes if change.before is None]),
        (_UPDATE, [change for change in changes if change.before is not None]),
    ):
        if some:
            rows += await connection.fetch(statement, tenant, *_columns(some))
    before = {change.id: change.before for change in changes}
    rows.sort(key=lambda row: row["id"])
    await connection.execute(
        _RECORD,
        tenant,
        author.user,
        author.request_id,
        author.reason,
        [row["id"] for row in rows],
        [_side(before[row["id"]]) for row in rows],
        [_side(row) for row in rows],
    )


async def _unknown(
    connection: asyncpg.Connection,
    assets: Iterable[ImportedAsset],
    relations: Iterable[PlacedRelation],
    *,
    lock: bool,
) -> set[str]:
    """Return the ids in relations that neither the import nor the CMDB contains."""
    ends = {
        end for placed in relations for end in (placed.relation.origin, placed.relation.target)
    } - {asset.id for asset in assets}
    if not ends:
        return set()
    rows = await connection.fetch(_KNOWN_LOCKED if lock else _KNOWN, sorted(ends))
    return ends - {row["id"] for row in rows}


def _unknown_ends(relations: Iterable[PlacedRelation], unknown: Collection[str]) -> list[str]:
    return [
        f"{placed.place}: {end}: there is no asset {asset!r} in this import or in the CMDB "
        f"of tenant {placed.relation.tenant!r}"
        for placed in relations
        for end, asset in (("from", placed.relation.origin), ("to", placed.relation.target))
        if asset in unknown
    ]


async def _relate(
    connection: asyncpg.Connection,
    tenant: str,
    relations: Sequence[PlacedRelation],
    *,
    dry_run: bool,
) -> list[dict[str, str]]:
    """Add the relations and return the new ones."""
    if not relations:
        return []
    wanted = sorted(
        (placed.relation.origin, placed.relation.target, placed.relation.type)
        for placed in relations
    )
    columns = tuple(list(column) for column in zip(*wanted, strict=True))
    if dry_run:
        rows = await connection.fetch(_RELATED, *columns)
    else:
        rows = await connection.fetch(_RELATE, tenant, *columns)
    return [
        {"tenant": tenant, "from": row["from_id"], "to": row["to_id"], "type": row["type"]}
        for row in rows
    ]


def _columns(changes: Iterable[_Change]) -> tuple[list[Any], ...]:
    rows = [(change.id, change.after, change.last_updated) for change in changes]
    return (
        [asset_id for asset_id, _, _ in rows],
        *([after[name] for _, after, _ in rows] for name in _FIELDS[:-1]),
        [json.dumps(after["attributes"], allow_nan=False) for _, after, _ in rows],
        [last_updated for _, _, last_updated in rows],
    )


def _fields(row: asyncpg.Record) -> dict[str, Any]:
    """Return the fields of a row that an import can set, as JSON values."""
    address = row["ip_address"]
    return {
        **{name: row[name] for name in _FIELDS},
        "ip_address": None if address is None else str(address),
        "attributes": json.loads(row["attributes"]),
    }


def _side(row: asyncpg.Record | None) -> str:
    """Return `before` or `after` of a change record: as for a status change, and the attributes."""
    if row is None:
        return "null"
    attributes = json.loads(row["attributes"])
    asset = Asset.model_validate(dict(row)).model_dump(mode="json")
    return json.dumps(asset | {"attributes": attributes})


def _difference(tenant: str, change: _Change) -> AssetDifference:
    if change.before is None:
        return AssetDifference(
            action="created", tenant=tenant, id=change.id, before={}, after=change.after
        )
    before = _fields(change.before)
    names = [name for name in _FIELDS if before[name] != change.after[name]]
    return AssetDifference(
        action="updated",
        tenant=tenant,
        id=change.id,
        before={name: before[name] for name in names},
        after={name: change.after[name] for name in names},
    )


def report_text(report: ImportReport) -> str:
    """Return the report as text: a summary and, after a dry run, each difference."""
    lines = []
    if report.dry_run:
        for difference in report.differences:
            lines.append(f"{difference.action}: {difference.id} (tenant {difference.tenant})")
            lines += [_line(difference, name) for name in difference.after]
        lines += [
            f"created: {new['from']} {new['type']} {new['to']} (tenant {new['tenant']})"
            for new in report.new_relations
        ]
    assets, relations = report.assets, report.relations
    lines.append(
        f"assets: {assets.created} created, {assets.updated} updated, {assets.unchanged} unchanged; "
        f"relations: {relations.created} created, {relations.unchanged} unchanged"
        + (" (dry run: nothing was written)" if report.dry_run else "")
    )
    return "\n".join(lines)


def _line(difference: AssetDifference, name: str) -> str:
    after = json.dumps(difference.after[name], ensure_ascii=False)
    if name not in difference.before:
        return f"  {name}: {after}"
    return f"  {name}: {json.dumps(difference.before[name], ensure_ascii=False)} -> {after}"
