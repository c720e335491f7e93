"""Cursors: where a list goes on, as text that clients hand back unchanged and cannot read.

What stands in one is before obligations: the last row's key, and the labels of an alert, may be what the
policy masks. So it is encrypted, under a key that all nodes have.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Annotated, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcp_server.tools.catalog import LONGEST_CURSOR, InvalidArguments, ListArguments, ToolError

__all__ = [
    "KEY_BYTES",
    "LONGEST_KEY",
    "Cursor",
    "bounded",
    "fingerprint",
    "fingerprint_of",
    "opened",
    "seal_cursors",
    "sealed",
]

KEY_BYTES = 64
"""Bytes of the key for `seal_cursors`."""

LONGEST_KEY = 264
"""Characters of what `bounded` returns, at most."""

_KEPT_OF_A_KEY = LONGEST_KEY - 64

# What may differ from page to page.
_PAGE_ONLY = {"limit", "cursor", "fields"}


class _Seal:
    """Encrypts cursors, with AES-SIV (RFC 5297): no number of them wears out the key."""

    # Until nodes share one, a cursor is good for its process alone.
    cipher = AESSIV(AESSIV.generate_key(8 * KEY_BYTES))


def seal_cursors(key: bytes) -> None:
    """Encrypt cursors with `key`, which all nodes of an installation must share."""
    _Seal.cipher = AESSIV(key)


def sealed(text: bytes) -> str:
    """Return a text as a cursor."""
    return base64.urlsafe_b64encode(_Seal.cipher.encrypt(text, None)).decode().rstrip("=")


def opened(cursor: str) -> bytes:
    """Return the text of a cursor.

    Raises:
        ValueError, InvalidTag: it is none that was sealed with this key.
    """
    padded = cursor + "=" * (-len(cursor) % 4)
    return _Seal.cipher.decrypt(base64.b64decode(padded, altchars=b"-_", validate=True), None)


class Cursor(BaseModel):
    """Base of what a cursor says; callers get it as a text that they hand back.

    Whoever forges one, with the key, must gain nothing by it that the arguments could not ask for. So
    every field of a subclass has bounds.

    Attributes:
        query: fingerprint of what is listed; a cursor fits only the list that it came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    query: Annotated[str, Field(max_length=16)]

    def encode(self) -> str:
        """Return it as a cursor.

        Raises:
            ToolError: it would be longer than the argument `cursor` may be.
        """
        cursor = sealed(self.model_dump_json(exclude_defaults=True).encode())
        if len(cursor) > LONGEST_CURSOR:
            raise ToolError(
                "the list is longer than a page, and where it goes on cannot be named; narrow the search"
            )
        return cursor

    @classmethod
    def decode(cls, cursor: str, query: str) -> Self:
        """Return where `cursor` points to.

        Raises:
            InvalidArguments: it is none of ours, or of another list.
        """
        try:
            position = cls.model_validate_json(opened(cursor))
        except (InvalidTag, ValueError, ValidationError):
            raise InvalidArguments(
                "cursor: this is not a cursor of this tool; leave it out to begin again"
            ) from None
        if position.query != query:
            raise InvalidArguments(
                "cursor: it belongs to a list with other arguments; keep those of the page before "
                "(fields may differ), or leave it out"
            )
        return position


def bounded(key: str) -> str:
    """Return what stands for a row's key, of any length, in a cursor and in the order of the rows."""
    if len(key) <= _KEPT_OF_A_KEY:
        return key
    return key[:_KEPT_OF_A_KEY] + hashlib.sha256(key.encode()).hexdigest()


def fingerprint(*parts: str | None) -> str:
    """Return a short text that tells apart what is listed."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def fingerprint_of(arguments: ListArguments) -> str:
    """Return a short text that tells apart what these arguments list, on whatever page."""
    return fingerprint(type(arguments).__name__, arguments.model_dump_json(exclude=_PAGE_ONLY))
