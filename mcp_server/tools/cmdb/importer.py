"""Bring assets into the embedded CMDB from a list, as often as you like with the same result."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, IPvAnyAddress, ValidationError

from mcp_server.tools.cmdb.model import AssetStatus, AssetType, Environment

__all__ = ["ImportCounts", "ImportedAsset", "InvalidAssets", "import_assets", "parse_assets"]

_FAULTS_SHOWN = 20


class InvalidAssets(ValueError):
    """The list cannot be imported; the message names every bad row and field, nothing was written."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        more = len(self.faults) - _FAULTS_SHOWN
        lines = [*self.faults[:_FAULTS_SHOWN], *([f"… and {more} more"] if more > 0 else [])]
        super().__init__("\n".join(lines))


class ImportedAsset(BaseModel):
    """One row of an import; `last_updated` is the time of the import where it is not given."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tenant: str = Field(default="default", min_length=1, max_length=128)
    id: str = Field(min_length=1, max_length=256)
    name: str = Field(min_length=1, max_length=256)
    type: AssetType
    environment: Environment
    status: AssetStatus = AssetStatus.ACTIVE
    ip_address: IPvAnyAddress | None = None
    owner: str | None = Field(default=None, max_length=256)
    last_updated: AwareDatetime | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)


class ImportCounts(BaseModel):
    """What an import did, or would do."""

    model_config = ConfigDict(frozen=True)

    created: int = 0
    updated: int = 0
    unchanged: int = 0


# xmax is 0 in a row that this statement inserted, and set in one that it updated; a row that is
# the same already is not returned.
_UPSERT = """
    INSERT INTO cmdb.assets AS old
        (tenant, id, name, type, environment, status, ip_address, owner, last_updated, attributes)
    SELECT $1, id, name, type, environment, status, ip_address, owner,
           coalesce(last_updated, now()), attributes
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::inet[],
                $8::text[], $9::timestamptz[], $10::jsonb[])
         AS new (id, name, type, environment, status, ip_address, owner, last_updated, attributes)
    ON CONFLICT (tenant, id) DO UPDATE SET
        name = excluded.name, type = excluded.type, environment = excluded.environment,
        status = excluded.status, ip_address = excluded.ip_address, owner = excluded.owner,
        last_updated = excluded.last_updated, attributes = excluded.attributes
    WHERE (old.name, old.type, old.environment, old.status, old.ip_address, old.owner,
           old.attributes)
        IS DISTINCT FROM
          (excluded.name, excluded.type, excluded.environment, excluded.status,
           excluded.ip_address, excluded.owner, excluded.attributes)
    RETURNING xmax = 0 AS created
"""


def parse_assets(document: object) -> tuple[ImportedAsset, ...]:
    """Check a list of assets as read from JSON, all of it before anything is written.

    Args:
        document: a list of objects with the fields of `ImportedAsset`.

    Raises:
        InvalidAssets: with one line for each fault: the row (from 1), its id, the field, the reason.
    """
    if not isinstance(document, list):
        raise InvalidAssets([f"expected a list of assets, not {type(document).__name__}"])
    assets: list[ImportedAsset] = []
    faults: list[str] = []
    first_row: dict[tuple[str, str], int] = {}
    for number, row in enumerate(document, start=1):
        label = f"row {number}"
        if isinstance(row, dict) and isinstance(row.get("id"), str):
            label += f" ({row['id']!r})"
        try:
            asset = ImportedAsset.model_validate(row)
        except ValidationError as error:
            faults += [f"{label}: {_fault(fault)}" for fault in error.errors()]
            continue
        faults += [f"{label}: {text}" for text in _unstorable(asset)]
        earlier = first_row.setdefault((asset.tenant, asset.id), number)
        if earlier != number:
            faults.append(f"{label}: id: the same as in row {earlier}")
        assets.append(asset)
    if faults:
        raise InvalidAssets(faults)
    return tuple(assets)


async def import_assets(
    connection: asyncpg.Connection, assets: Iterable[ImportedAsset], *, dry_run: bool = False
) -> ImportCounts:
    """Create or update the assets, all or none; those not in the list stay as they are.

    Args:
        connection: of a role that may write cmdb.assets (`mcp_owner`).
        assets: from `parse_assets`.
        dry_run: find out the counts, then undo.

    Returns:
        How many were created, updated, and the same already.
    """
    by_tenant: defaultdict[str, list[ImportedAsset]] = defaultdict(list)
    for asset in assets:
        by_tenant[asset.tenant].append(asset)
    created = updated = unchanged = 0
    transaction = connection.transaction()
    await transaction.start()
    try:
        for tenant, rows in sorted(by_tenant.items()):
            await connection.execute("SELECT set_config('mcp.tenant', $1, true)", tenant)
            written = await connection.fetch(_UPSERT, tenant, *_columns(rows))
            inserted = sum(row["created"] for row in written)
            created += inserted
            updated += len(written) - inserted
            unchanged += len(rows) - len(written)
    except BaseException:
        await transaction.rollback()
        raise
    if dry_run:
        await transaction.rollback()
    else:
        await transaction.commit()
    return ImportCounts(created=created, updated=updated, unchanged=unchanged)


def _columns(rows: Sequence[ImportedAsset]) -> tuple[list[Any], ...]:
    return (
        [row.id for row in rows],
        [row.name for row in rows],
        [row.type.value for row in rows],
        [row.environment.value for row in rows],
        [row.status.value for row in rows],
        [row.ip_address for row in rows],
        [row.owner for row in rows],
        [row.last_updated for row in rows],
        [json.dumps(row.attributes, allow_nan=False) for row in rows],
    )


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where}: {fault['msg']}" if where else str(fault["msg"])


def _unstorable(asset: ImportedAsset) -> list[str]:
    """Name the fields that PostgreSQL could not hold."""
    faults = []
    for field in ("tenant", "id", "name", "owner", "attributes"):
        try:
            text = json.dumps(getattr(asset, field), ensure_ascii=False, allow_nan=False)
            if "\\u0000" in text:
                faults.append(f"{field}: NUL characters cannot be stored")
            text.encode()
        except (TypeError, ValueError):
            faults.append(f"{field}: holds what JSON or UTF-8 cannot express")
    return faults
