"""Pagination of lists, with cursors that stay valid when the list changes between two pages."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["PAGE_SIZE", "InvalidCursor", "page"]

PAGE_SIZE = 100

_ItemT = TypeVar("_ItemT")


class InvalidCursor(Exception):
    """The cursor does not belong to this list; the message is for the client."""


def page(
    method: str,
    items: Sequence[_ItemT],
    key: Callable[[_ItemT], str],
    cursor: str | None,
    *,
    size: int = PAGE_SIZE,
) -> tuple[list[_ItemT], str | None]:
    """Return one page of `items` and the cursor of the next one, or None after the last.

    Args:
        method: the list's method; a cursor of one list is refused by the others.
        items: the whole list, sorted by `key`.
        cursor: None for the first page.

    Raises:
        InvalidCursor: the cursor did not come from this list.
    """
    if cursor is not None:
        after = _decoded(method, cursor)
        items = [item for item in items if key(item) > after]
    found = list(items[:size])
    return found, _encoded(method, key(found[-1])) if len(items) > size else None


def _encoded(method: str, after: str) -> str:
    text = json.dumps([method, after], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(method: str, cursor: str) -> str:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        match json.loads(text):
            case [str(given), str(after)] if given == method:
                return after
    except (ValueError, binascii.Error, RecursionError):
        pass
    raise InvalidCursor(
        f"cursor: not a cursor of {method}; pass nextCursor of the previous page unchanged, or no cursor"
    )
