"""JSON: a list of assets, or an object with `assets` and `relations`."""

from __future__ import annotations

import json
from typing import Any

from mcp_server.cli.cmdb_import.records import Record, RecordsRead

__all__ = ["parse_json", "read_json", "read_json_relations"]

_KEYS = ("assets", "relations")


def read_json(name: str, text: str) -> RecordsRead:
    """Read a list of assets, or an object with `assets` or `relations` or both.

    Args:
        name: name of the file, for messages.
        text: content of the file.
    """
    try:
        document = parse_json(text)
    except ValueError as error:
        return RecordsRead(faults=(f"{name}: {error}",))
    if isinstance(document, list):
        return RecordsRead(assets=_records(f"{name} record", document))
    if not isinstance(document, dict):
        what = type(document).__name__
        fault = (
            f"{name}: expected a list of assets or an object with assets and relations, not {what}"
        )
        return RecordsRead(faults=(fault,))
    faults = [
        f"{name}: unknown key {key!r}; known are {', '.join(_KEYS)}"
        for key in document
        if key not in _KEYS
    ]
    lists: dict[str, list[Any]] = {}
    for key in _KEYS:
        held = document.get(key, [])
        if isinstance(held, list):
            lists[key] = held
        else:
            faults.append(f"{name}: {key}: expected a list, not {type(held).__name__}")
    return RecordsRead(
        assets=_records(f"{name} asset", lists.get("assets", [])),
        relations=_records(f"{name} relation", lists.get("relations", [])),
        faults=tuple(faults),
    )


def read_json_relations(name: str, text: str) -> RecordsRead:
    """Read a list of relations."""
    try:
        document = parse_json(text)
    except ValueError as error:
        return RecordsRead(faults=(f"{name}: {error}",))
    if not isinstance(document, list):
        what = type(document).__name__
        return RecordsRead(faults=(f"{name}: expected a list of relations, not {what}",))
    return RecordsRead(relations=_records(f"{name} relation", document))


def parse_json(text: str) -> Any:
    """Return the parsed text; a duplicate key is an error.

    Raises:
        ValueError: the text is not valid JSON; the message contains the position.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("not usable JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for key, value in pairs:
        if key in held:
            raise ValueError(f"not usable JSON: the key {key!r} appears twice in one object")
        held[key] = value
    return held


def _records(label: str, rows: list[Any]) -> tuple[Record, ...]:
    return tuple(Record(f"{label} {number}", row) for number, row in enumerate(rows, start=1))
