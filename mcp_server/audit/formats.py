"""Writes rows of the audit log as a table, JSON lines, CSV or OCSF events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mcp_server.audit.ocsf import ocsf_event
from mcp_server.audit.record import COLUMNS

__all__ = ["FORMATS", "Format", "json_text"]

_TABLE = (
    ("TIME", 24),
    ("USER", 16),
    ("TENANT", 10),
    ("TOOL OR METHOD", 30),
    ("EFFECT", 8),
    ("OUTCOME", 12),
    ("MS", 8),
    ("REQUEST", 32),
    ("REASONS", 0),
)
# Spreadsheets run a cell that begins with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

# ASCII only: a terminal acts on no control character of a client's text.
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


class Format:
    """One output format.

    Attributes:
        header: the first line, or None.
        line: returns the line of a row (`mcp_server.audit.search.stream`), without its end.
    """

    def __init__(self, line: Callable[[Mapping[str, Any]], str], header: str | None = None) -> None:
        self.header = header
        self.line = line


def json_text(value: Any) -> str:
    """Return a row, or a part of one, as JSON in one line; times are RFC 3339 in UTC."""
    return _encode(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    match value:
        case datetime():
            return _time(value)
        case bytes():
            return value.hex()
        case _:
            return value


def _time(value: datetime) -> str:
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _table_line(row: Mapping[str, Any]) -> str:
    cells = (
        _time(row["time"])[:23] + "Z",
        row["user_id"],
        row["tenant"],
        row["tool"] or row["method"],
        row["effect"],
        row["outcome"] or row["phase"],
        None if row["duration_ms"] is None else f"{row['duration_ms']:.1f}",
        row["request_id"],
        ",".join(reason["code"] for reason in row["reasons"]),
    )
    return _padded([_printable(cell) for cell in cells])


def _padded(cells: list[str]) -> str:
    widths = (width for _, width in _TABLE)
    return "  ".join(map(str.ljust, cells, widths)).rstrip()


def _printable(cell: str | None) -> str:
    if not cell:
        return "-"
    return cell if cell.isprintable() else json.dumps(cell)[1:-1]


def _csv_line(row: Mapping[str, Any]) -> str:
    return _csv([_csv_cell(row[name]) for name in COLUMNS])


def _csv_cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return _time(value)
        case bytes():
            return value.hex()
        case dict() | list():
            return json_text(value)
        case str() if value.startswith(_FORMULA):
            return "'" + value
        case _:
            return str(value)


def _csv(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


FORMATS = {
    "table": Format(_table_line, _padded([title for title, _ in _TABLE])),
    "json": Format(json_text),
    "csv": Format(_csv_line, _csv(list(COLUMNS))),
    "ocsf": Format(lambda row: json_text(ocsf_event(row))),
}
"""The formats by name."""
