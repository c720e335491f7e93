"""Cursors of lists that the API server pages."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcp_server.tools.catalog import ToolError

__all__ = ["Cursor", "Page", "Position", "fingerprint"]


class Cursor(BaseModel):
    """Base of what a cursor says; callers get it as a text that they hand back.

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
                "this is not a cursor of this tool; leave it out to begin again"
            ) from None
        if position.query != query:
            raise ToolError(
                "the cursor belongs to a list with other arguments; keep them, or leave it out"
            )
        return position


class Position(Cursor):
    """Where in a list to go on: a page of the API server, and how many of its rows to leave out.

    The API server's own token names only the end of a whole page. A page that was cut, because an
    answer may hold so many bytes, is asked for once more at the same state of the cluster.

    Attributes:
        size: rows of a whole page.
        token: the API server's token of the page; empty for the first one.
        version: resource version of the first page, where it has to be asked for again.
        seen: rows on the pages before.
        skip: rows of this page that were already shown.
    """

    size: Annotated[int, Field(ge=1, le=500)]
    token: Annotated[str, Field(max_length=3072)] = ""
    version: Annotated[str, Field(pattern=r"^[0-9]{0,20}$")] = ""
    seen: Annotated[int, Field(ge=0)] = 0
    skip: Annotated[int, Field(ge=0, lt=500)] = 0

    def parameters(self) -> dict[str, str]:
        """Return the query parameters that ask the API server for this page."""
        parameters = {"limit": str(self.size)}
        if self.token:
            parameters["continue"] = self.token
        elif self.version:
            parameters |= {"resourceVersion": self.version, "resourceVersionMatch": "Exact"}
        return parameters


class Page:
    """One page as the API server answered it.

    Args:
        position: what was asked for.
        metadata: the list's metadata.
        rows: how many rows it has, the ones left out included.
    """

    def __init__(self, position: Position, metadata: dict[str, object], rows: int) -> None:
        self._position = position
        self._rows = rows
        self._token = str(metadata.get("continue") or "")
        self._version = str(metadata.get("resourceVersion") or "")
        self._remaining = metadata.get("remainingItemCount")

    @property
    def total(self) -> int | None:
        """How many there are in all; None where the API server does not count (with selectors)."""
        so_far = self._position.seen + self._rows
        if not self._token:
            return so_far
        return so_far + self._remaining if isinstance(self._remaining, int) else None

    @property
    def next_cursor(self) -> str | None:
        """Asks for the page after this one; None: this is the last."""
        if not self._token:
            return None
        return Position(
            query=self._position.query,
            size=self._position.size,
            token=self._token,
            seen=self._position.seen + self._rows,
        ).encode()

    def cursor_after(self, shown: int) -> str:
        """Return the cursor that goes on after the first `shown` rows that were not left out."""
        return self._position.model_copy(
            update={
                "skip": self._position.skip + shown,
                "version": "" if self._position.token else self._version,
            }
        ).encode()


def fingerprint(*parts: str | None) -> str:
    """Return a short text that tells apart what is listed."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
