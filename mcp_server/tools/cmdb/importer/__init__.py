"""Bring assets and relations into the embedded CMDB from files, as often as you like.

`files` reads them in one of three formats (`csv_format`, `json_format`, `netbox`), `records` checks
all of it, `writing` compares it with what the CMDB has and writes the difference.
"""

from __future__ import annotations

from mcp_server.tools.cmdb.importer.files import Format, Source, read_sources
from mcp_server.tools.cmdb.importer.netbox import NetBoxRules
from mcp_server.tools.cmdb.importer.records import (
    CmdbImport,
    ImportedAsset,
    ImportedRelation,
    InvalidImport,
)
from mcp_server.tools.cmdb.importer.writing import (
    AssetDifference,
    Counts,
    ImportReport,
    ImportUnknown,
    report_text,
    write_import,
)

__all__ = [
    "AssetDifference",
    "CmdbImport",
    "Counts",
    "Format",
    "ImportReport",
    "ImportUnknown",
    "ImportedAsset",
    "ImportedRelation",
    "InvalidImport",
    "NetBoxRules",
    "Source",
    "read_sources",
    "report_text",
    "write_import",
]
