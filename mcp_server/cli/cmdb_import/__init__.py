"""Imports assets and relations from files into the embedded CMDB; repeatable.

`files` reads three formats (`csv_format`, `json_format`, `netbox`), `records` validates them, and
`writing` compares them with the CMDB and writes the difference.
"""

from __future__ import annotations

from mcp_server.cli.cmdb_import.files import Format, Source, read_sources
from mcp_server.cli.cmdb_import.netbox import NetBoxRules
from mcp_server.cli.cmdb_import.records import (
    CmdbImport,
    ImportedAsset,
    ImportedRelation,
    InvalidImport,
)
from mcp_server.cli.cmdb_import.writing import (
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
