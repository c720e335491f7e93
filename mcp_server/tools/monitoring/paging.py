"""Cursors of lists that are computed anew for each page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mcp_server.tools.catalog import ListArguments, ToolError

__all__ = ["decode_cursor", "encode_cursor"]

_PAGE_ONLY = {"limit", "cursor", "fields"}


def encode_cursor(arguments: ListArguments, place: Mapping[str, Any]) -> str:
    """Return a cursor that continues the list of these arguments at `place` (JSON-ready)."""
    document = {"of": _digest(arguments), **place}
    return base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).decode()


def decode_cursor(arguments: ListArguments, kinds: Mapping[str, type]) -> dict[str, Any] | None:
    """Return the place that the arguments' cursor names, or None where there is no cursor.

    Args:
        kinds: the keys of a place and their types.

    Raises:
        ToolError: the cursor is not one of ours, or belongs to other arguments.
    """
    if arguments.cursor is None:
        return None
    try:
        place = json.loads(base64.urlsafe_b64decode(arguments.cursor.encode("ascii")))
    except (ValueError, RecursionError):
        place = None
    if not isinstance(place, dict) or not all(
        type(place.get(key)) is kind for key, kind in {"of": str, **kinds}.items()
    ):
        raise ToolError("cursor: not one that this tool gave; leave it out for the first page")
    if place["of"] != _digest(arguments):
        raise ToolError(
            "cursor: it belongs to other arguments; repeat those of the page before (limit and "
            "fields may differ), or leave it out"
        )
    return place


def _digest(arguments: ListArguments) -> str:
    asked = arguments.model_dump_json(exclude=_PAGE_ONLY)
    return hashlib.sha256(asked.encode()).hexdigest()[:16]
