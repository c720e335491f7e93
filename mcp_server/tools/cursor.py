"""Cursors: where a list goes on, as text that clients hand back unchanged."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcp_server.tools.catalog import ListArguments, ToolError

__all__ = ["Cursor", "bounded", "fingerprint", "fingerprint_of"]

_LONGEST_KEY = 200

# What may differ from page to page.
_PAGE_ONLY = {"limit", "cursor", "fields"}


class Cursor(BaseModel):
    """Base of what a cursor says; callers get it as a text that they hand back.

    The text is not signed: whoever forges one must gain nothing by it that the arguments could not
    ask for. So every field of a subclass has bounds.

    Attributes:
        query: fingerprint of what is listed; a cursor fits only the list that it came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    query: Annotated[str, Field(max_length=16)]

    def encode(self) -> str:
        """Return it as a cursor."""
        text = self.model_dump_json(exclude_defaults=True)
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, cursor: str, query: str) -> Self:
        """Return where `cursor` points to.

        Raises:
            ToolError: it is none of ours, or of another list.
        """
        try:
            text = base64.b64decode(
                cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True
            )
            position = cls.model_validate_json(text)
        except (ValueError, ValidationError):
            raise ToolError(
                "cursor: this is not a cursor of this tool; leave it out to begin again"
            ) from None
        if position.query != query:
            raise ToolError(
                "cursor: it belongs to a list with other arguments; keep those of the page before "
                "(fields may differ), or leave it out"
            )
        return position


def bounded(key: str) -> str:
    """Return what stands for a row's key, of any length, in a cursor and in the order of the rows."""
    if len(key) <= _LONGEST_KEY:
        return key
    return key[:_LONGEST_KEY] + hashlib.sha256(key.encode()).hexdigest()


def fingerprint(*parts: str | None) -> str:
    """Return a short text that tells apart what is listed."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def fingerprint_of(arguments: ListArguments) -> str:
    """Return a short text that tells apart what these arguments list, on whatever page."""
    return fingerprint(type(arguments).__name__, arguments.model_dump_json(exclude=_PAGE_ONLY))
