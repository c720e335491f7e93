"""Pages of lists that the API server splits into chunks (`limit` and `continue`)."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field

from mcp_server.tools.catalog import LONGEST_CURSOR
from mcp_server.tools.cursor import Cursor, CursorCipher

__all__ = ["Page", "Position"]


# More objects of one kind than any cluster has; bounds a forged number.
_MAX_SEEN = 10_000_000


class Position(Cursor):
    """Content of a cursor: a page of the API server, and how many of its rows to skip.

    The token of the API server names the end of a whole page only. A page that was cut to the byte
    budget is requested again at the same resource version.

    A forged position gains nothing: the arguments and the policy determine the list and the number of
    rows, and the API server refuses a token of another namespace.

    Attributes:
        size: rows of a whole page.
        token: the API server's `continue` token of the page; empty for the first page.
        version: resource version of the first page, if that is requested again.
        seen: rows on earlier pages.
        skip: rows of this page that were already returned.
    """

    size: Annotated[int, Field(ge=1, le=500)]
    token: Annotated[str, Field(max_length=LONGEST_CURSOR)] = ""
    version: Annotated[str, Field(pattern=r"^[0-9]{0,20}$")] = ""
    seen: Annotated[int, Field(ge=0, le=_MAX_SEEN)] = 0
    skip: Annotated[int, Field(ge=0, lt=500)] = 0

    def resized(self, size: int) -> Self:
        """Return the same position with another page size, if it is the beginning of a page."""
        return self if self.skip else self.model_copy(update={"size": size})

    def parameters(self) -> dict[str, str]:
        """Return the query parameters that request this page."""
        parameters = {"limit": str(self.size)}
        if self.token:
            parameters["continue"] = self.token
        elif self.version:
            parameters |= {"resourceVersion": self.version, "resourceVersionMatch": "Exact"}
        return parameters


class Page:
    """One page of the API server.

    Args:
        position: position of the page.
        metadata: metadata of the list.
        rows: number of its rows, skipped ones included.
        limit: maximum rows for the caller.
        cipher: encrypts the cursors.
    """

    def __init__(
        self,
        position: Position,
        metadata: dict[str, object],
        rows: int,
        *,
        limit: int,
        cipher: CursorCipher,
    ) -> None:
        self._position = position
        self._rows = rows
        self._limit = limit
        self._cipher = cipher
        self._token = str(metadata.get("continue") or "")
        self._version = str(metadata.get("resourceVersion") or "")
        self._remaining = metadata.get("remainingItemCount")

    @property
    def shown(self) -> slice:
        """The rows that the caller gets."""
        return slice(self._position.skip, self._position.skip + self._limit)

    @property
    def total(self) -> int | None:
        """Number of all rows; None if the API server does not count them (with selectors)."""
        so_far = self._position.seen + self._rows
        if not self._token:
            return so_far
        return so_far + self._remaining if isinstance(self._remaining, int) else None

    @property
    def next_cursor(self) -> str | None:
        """Cursor of the next page; None: there is none."""
        if self.shown.stop < self._rows:
            return self.cursor_after(self._limit)
        if not self._token:
            return None
        return self._position.model_copy(
            update={
                "token": self._token,
                "version": "",
                "seen": self._position.seen + self._rows,
                "skip": 0,
            }
        ).encode(self._cipher)

    def summary(self) -> dict[str, Any]:
        """Return the fields of a `ListResult` about the page."""
        following = self.next_cursor
        return {"total": self.total, "truncated": following is not None, "next_cursor": following}

    def cursor_after(self, shown: int) -> str:
        """Return the cursor after the first `shown` rows of the caller."""
        return self._position.model_copy(
            update={
                "skip": self._position.skip + shown,
                "version": "" if self._position.token else self._version,
            }
        ).encode(self._cipher)
