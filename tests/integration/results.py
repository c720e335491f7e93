"""Validates results of tools against their declarations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jsonschema

from mcp_server.redaction import MASK
from mcp_server.tools.catalog import Tool

__all__ = ["hold"]


def hold(
    tool: Tool[Any, Any], structured: Mapping[str, Any], *, fields: Sequence[str] | None = None
) -> None:
    """Check a result: every field is there and has its type, or is masked, and there are no others.

    Args:
        fields: of a list: those of each row that were chosen.

    Raises:
        jsonschema.ValidationError: saying what differs.
    """
    schema = dict(tool.result_schema)
    if tool.rows is not None and fields is not None:
        rows = schema["properties"][tool.rows]
        row = _of_fields(rows["items"], fields, schema.get("$defs", {}))
        properties = {**schema["properties"], tool.rows: {**rows, "items": row}}
        schema = {**schema, "properties": properties}
    jsonschema.validate(structured, _or_masked(schema))


def _of_fields(
    row: Mapping[str, Any], fields: Sequence[str], definitions: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the schema of a row that has these fields only."""
    if "$ref" in row:
        row = definitions[row["$ref"].rpartition("/")[2]]
    chosen = {name: row["properties"][name] for name in fields}
    return {**row, "properties": chosen, "required": list(chosen)}


def _or_masked(schema: Any) -> Any:
    """Return a schema in which each property may be what masks it."""
    if isinstance(schema, list):
        return [_or_masked(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: {"anyOf": [_or_masked(part), {"const": MASK}]} for name, part in value.items()}
        if key == "properties"
        else _or_masked(value)
        for key, value in schema.items()
    }
