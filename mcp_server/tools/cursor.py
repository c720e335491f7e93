"""Cursors: positions in a list, as text that clients return unchanged and cannot read.

A cursor holds values from before obligations, such as the key of the last row, which the policy may
mask. It is therefore encrypted, with a key that all nodes of an installation share.
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
    "CursorCipher",
    "bounded_key",
    "fingerprint",
    "fingerprint_of",
]

KEY_BYTES = 64
"""Length of the key of a `CursorCipher` in bytes."""

LONGEST_KEY = 264
"""Maximum characters that `bounded_key` returns."""

_KEY_PREFIX = LONGEST_KEY - 64

# These arguments may differ from page to page.
_PAGE_ONLY = {"limit", "cursor", "fields"}


class CursorCipher:
    """Encrypts cursors with AES-SIV (RFC 5297): no number of cursors wears out the key.

    Args:
        key: 64 bytes that all nodes share; None: a random key, so that cursors are valid for this
            object only.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._cipher = AESSIV(AESSIV.generate_key(8 * KEY_BYTES) if key is None else key)

    def encrypt(self, text: bytes) -> str:
        """Return `text` as a cursor."""
        return base64.urlsafe_b64encode(self._cipher.encrypt(text, None)).decode().rstrip("=")

    def decrypt(self, cursor: str) -> bytes:
        """Return the text of a cursor.

        Raises:
            ValueError, InvalidTag: the cursor was not encrypted with this key.
        """
        padded = cursor + "=" * (-len(cursor) % 4)
        return self._cipher.decrypt(base64.b64decode(padded, altchars=b"-_", validate=True), None)


class Cursor(BaseModel):
    """Base class of the content of cursors.

    A client that forges a cursor, with the key, must not gain anything that the arguments do not allow.
    Every field of a subclass is therefore bounded.

    Attributes:
        query: fingerprint of the list; a cursor is valid for the list it came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    query: Annotated[str, Field(max_length=16)]

    def encode(self, cipher: CursorCipher) -> str:
        """Return the content as a cursor.

        Raises:
            ToolError: the cursor would be longer than the argument `cursor` may be.
        """
        cursor = cipher.encrypt(self.model_dump_json(exclude_defaults=True).encode())
        if len(cursor) > LONGEST_CURSOR:
            raise ToolError(
                "the list is longer than a page, and the cursor of the next page would be too long; "
                "narrow the search"
            )
        return cursor

    @classmethod
    def decode(cls, cipher: CursorCipher, cursor: str, query: str) -> Self:
        """Return the content of a cursor.

        Raises:
            InvalidArguments: it is not a cursor of this server, or belongs to another list.
        """
        try:
            position = cls.model_validate_json(cipher.decrypt(cursor))
        except (InvalidTag, ValueError, ValidationError):
            raise InvalidArguments(
                "cursor: this is not a cursor of this tool; leave it out to begin again"
            ) from None
        if position.query != query:
            raise InvalidArguments(
                "cursor: it belongs to a list with other arguments; repeat the arguments of the "
                "previous page (fields may differ), or leave it out"
            )
        return position


def bounded_key(key: str) -> str:
    """Return a text of bounded length that replaces a row's key in cursors and in the sort order."""
    if len(key) <= _KEY_PREFIX:
        return key
    return key[:_KEY_PREFIX] + hashlib.sha256(key.encode()).hexdigest()


def fingerprint(*parts: str | None) -> str:
    """Return a short text that identifies a list."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def fingerprint_of(arguments: ListArguments) -> str:
    """Return a short text that identifies the list of these arguments, the same for all its pages."""
    return fingerprint(type(arguments).__name__, arguments.model_dump_json(exclude=_PAGE_ONLY))
