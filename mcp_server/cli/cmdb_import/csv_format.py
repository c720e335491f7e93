"""CSV with the names of the fields in the first line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mcp_server.cli.cmdb_import.json_format import parse_json
from mcp_server.cli.cmdb_import.records import Record, RecordsRead

__all__ = ["read_csv_assets", "read_csv_relations"]

_ATTRIBUTE = "attributes."
_REQUIRED = ("id", "name", "type", "environment")
_OPTIONAL = ("status", "ip_address", "owner", "last_updated", "attributes", "tenant")
# An empty cell in these columns clears the field; in other columns it is the same as no column.
_MAY_BE_NONE = ("ip_address", "owner")
_RELATION = ("from", "to", "type")


def read_csv_assets(name: str, text: str) -> RecordsRead:
    """Read one asset per line; the columns may be in any order.

    `attributes` holds a JSON object; a column `attributes.NAME` holds one attribute as text. An empty
    cell clears ip_address and owner; for other fields it is the same as no column.

    Args:
        name: name of the file, for messages.
        text: content of the file.
    """
    return _read(name, text, required=_REQUIRED, optional=_OPTIONAL, relations=False)


def read_csv_relations(name: str, text: str) -> RecordsRead:
    """Read relations from the columns from, to, type and, where needed, tenant."""
    return _read(name, text, required=_RELATION, optional=("tenant",), relations=True)


def _read(
    name: str, text: str, *, required: Sequence[str], optional: Sequence[str], relations: bool
) -> RecordsRead:
    records: list[Record] = []
    faults: list[str] = []
    lines = _lines(text)
    try:
        _, header = next(lines, (1, []))
        columns = [column.strip() for column in header]
        header_faults = _header_faults(columns, required, optional, attributes=not relations)
        if header_faults:  # what the cells mean is not known
            return RecordsRead(faults=tuple(f"{name} line 1: {fault}" for fault in header_faults))
        for line, cells in lines:
            place = f"{name} line {line}"
            if len(cells) != len(columns):
                faults.append(f"{place}: {len(cells)} cells, but the header has {len(columns)}")
                continue
            try:
                records.append(Record(place, _values(columns, cells)))
            except ValueError as error:
                faults.append(f"{place}: {error}")
    except csv.Error as error:
        faults.append(f"{name}: not valid CSV after the lines read so far: {error}")
    rows = tuple(records)
    return RecordsRead(
        assets=() if relations else rows,
        relations=rows if relations else (),
        faults=tuple(faults),
    )


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the number of its first line; empty lines are skipped."""
    # newline="": the csv module itself distinguishes the end of a row from line breaks in quotes.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begin = 1
    for cells in reader:
        if cells:
            yield begin, cells
        begin = reader.line_num + 1


def _header_faults(
    columns: Sequence[str], required: Sequence[str], optional: Sequence[str], *, attributes: bool
) -> list[str]:
    known = (*required, *optional)
    faults = []
    for number, column in enumerate(columns, start=1):
        if column in columns[: number - 1]:
            faults.append(f"column {column!r} appears twice")
        elif column not in known and not (attributes and _is_attribute(column)):
            more = " and attributes.NAME" if attributes else ""
            faults.append(f"unknown column {column!r}; known are {', '.join(known)}{more}")
    faults += [f"column {column!r} is missing" for column in required if column not in columns]
    return faults


def _is_attribute(column: str) -> bool:
    return column.startswith(_ATTRIBUTE) and column != _ATTRIBUTE


def _values(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    has_attributes = False
    for column, raw in zip(columns, cells, strict=True):
        cell = raw.strip()
        if _is_attribute(column) or column == "attributes":
            has_attributes = True
        if not cell:
            if column in _MAY_BE_NONE:
                values[column] = None
        elif column == "attributes":
            try:
                held = parse_json(cell)
            except ValueError as error:
                raise ValueError(f"attributes: {error}") from None
            if not isinstance(held, dict):
                raise ValueError("attributes: must be a JSON object")
            _add(attributes, held, column)
        elif _is_attribute(column):
            _add(attributes, {column.removeprefix(_ATTRIBUTE): cell}, column)
        else:
            values[column] = cell
    if has_attributes:
        values["attributes"] = attributes
    return values


def _add(attributes: dict[str, Any], more: Mapping[str, Any], column: str) -> None:
    """Add the attributes of a column.

    Raises:
        ValueError: another column of the row sets the same attribute.
    """
    for name in more:
        if name in attributes:
            raise ValueError(f"{column}: the attribute {name!r} is in another column too")
    attributes.update(more)
