"""Imports into the embedded CMDB, for tests that need assets or that are about importing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import asyncpg

from mcp_server.cli.cmdb_import import ImportReport, write_import
from mcp_server.cli.cmdb_import.records import Record, RecordsRead, check_records

__all__ = ["import_rows"]


async def import_rows(
    owner: asyncpg.Connection,
    assets: Iterable[Mapping[str, Any]],
    relations: Iterable[Mapping[str, Any]] = (),
    *,
    tenant: str | None = None,
    dry_run: bool = False,
) -> ImportReport:
    """Import assets and relations given as a file would have them."""
    read = RecordsRead(
        assets=tuple(Record(f"asset {number}", row) for number, row in enumerate(assets, 1)),
        relations=tuple(
            Record(f"relation {number}", row) for number, row in enumerate(relations, 1)
        ),
    )
    return await write_import(
        owner,
        check_records([read], tenant=tenant),
        user="importer",
        reason="a test",
        request_id="import-1",
        dry_run=dry_run,
    )
