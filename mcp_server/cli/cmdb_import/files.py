"""Files of an import: their maximum size, their formats, and how they are read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mcp_server.cli.cmdb_import.csv_format import read_csv_assets, read_csv_relations
from mcp_server.cli.cmdb_import.json_format import read_json, read_json_relations
from mcp_server.cli.cmdb_import.netbox import NetBoxRules, read_netbox
from mcp_server.cli.cmdb_import.records import (
    CmdbImport,
    InvalidImport,
    RecordsRead,
    check_records,
)

__all__ = ["MOST_BYTES", "MOST_RECORDS", "Format", "Source", "read_sources"]

MOST_BYTES = 64 * 1024 * 1024
"""Maximum bytes of a file."""
MOST_RECORDS = 100_000
"""Maximum assets and relations of one import, which is one transaction."""

STDIN = "-"


class Format(StrEnum):
    """Format of a file."""

    CSV = "csv"
    JSON = "json"
    NETBOX = "netbox"


@dataclass(frozen=True)
class Source:
    """A file to import.

    Attributes:
        path: path of the file; `-` is standard input.
        format: format of the file; None: given by the suffix .csv or .json.
        relations: whether the file contains only relations.
    """

    path: str
    format: Format | None = None
    relations: bool = False


def read_sources(
    sources: Sequence[Source],
    *,
    tenant: str | None = None,
    netbox: NetBoxRules | None = None,
) -> CmdbImport:
    """Read and validate all files of an import.

    Args:
        sources: the files.
        tenant: tenant of all records; None: each record's own tenant, or the default tenant.
        netbox: values that NetBox exports do not contain.

    Raises:
        InvalidImport: the message lists every fault of every file.
    """
    read = [_read(source, netbox or NetBoxRules()) for source in sources]
    records = sum(len(file.assets) + len(file.relations) for file in read)
    if records > MOST_RECORDS:
        raise InvalidImport(
            [f"{records} records are too many for one import; at most {MOST_RECORDS}: split it"]
        )
    return check_records(read, tenant=tenant)


def _read(source: Source, netbox: NetBoxRules) -> RecordsRead:
    name = "standard input" if source.path == STDIN else source.path
    try:
        written_as = source.format or _format_by_name(source.path)
        text = _text(source.path)
    except ValueError as error:
        return RecordsRead(faults=(f"{name}: {error}",))
    match written_as, source.relations:
        case Format.CSV, False:
            return read_csv_assets(name, text)
        case Format.CSV, True:
            return read_csv_relations(name, text)
        case Format.JSON, False:
            return read_json(name, text)
        case Format.JSON, True:
            return read_json_relations(name, text)
        case _:
            return read_netbox(name, text, netbox)


def _format_by_name(path: str) -> Format:
    match Path(path).suffix.lower():
        case ".csv":
            return Format.CSV
        case ".json":
            return Format.JSON
        case _:
            raise ValueError("the name does not tell the format; say --format csv, json or netbox")


def _text(path: str) -> str:
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ValueError(
            f"larger than {MOST_BYTES // 1024 // 1024} MiB, the most for one file: split it"
        )
    try:
        return content.decode("utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start} is wrong") from None
