"""Cursors: where a list goes on, as text that clients hand back unchanged."""

from __future__ import annotations

import base64
import binascii

from mcp_server.tools.catalog import ToolError

__all__ = ["InvalidCursor", "decode_cursor", "encode_cursor"]

_VERSION = "1"


class InvalidCursor(ToolError):
    """The cursor is not one that this tool gave out."""

    def __init__(self) -> None:
        super().__init__("the cursor is not valid; use next_cursor of the page before")


def encode_cursor(kind: str, key: str) -> str:
    """Return the opaque cursor that continues after the row `key` of lists of this kind.

    Args:
        kind: a word without a colon; a cursor of one kind is refused by lists of another.
        key: what identifies the last row seen; not empty.
    """
    raw = f"{_VERSION}:{kind}:{key}".encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_cursor(kind: str, cursor: str) -> str:
    """Return the key of the row after which the cursor continues.

    Raises:
        InvalidCursor: `encode_cursor` did not make it for lists of this kind.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (UnicodeError, binascii.Error):
        raise InvalidCursor from None
    key = raw.removeprefix(f"{_VERSION}:{kind}:")
    if not key or "\0" in key or encode_cursor(kind, key) != cursor:
        raise InvalidCursor
    return key
