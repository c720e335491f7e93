"""Cursors of lists that the API server pages."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field

from mcp_server.tools.catalog import LONGEST_CURSOR
from mcp_server.tools.cursor import Cursor

__all__ = ["Page", "Position"]


# The most objects of one kind that anyone lists; a forged number does not make numbers without end.
_MOST_SEEN = 10_000_000


class Position(Cursor):
    """Where in a list to go on: a page of the API server, and how many of its rows to leave out.

    The API server's own token names only the end of a whole page. A page that was cut, because an
    answer may hold so many bytes, is asked for once more at the same state of the cluster.

    Nothing here can widen what a caller may have: what is listed, and how many rows are returned, come
    from the arguments and the policy, and the API server takes no token that leads out of a namespace.

    Attributes:
        size: rows of a whole page, of which as many are returned as the caller may have.
        token: the API server's token of the page; empty for the first one.
        version: resource version of the first page, where it has to be asked for again.
        seen: rows on the pages before.
        skip: rows of this page that were already shown.
    """

    size: Annotated[int, Field(ge=1, le=500)]
    token: Annotated[str, Field(max_length=LONGEST_CURSOR)] = ""
    version: Annotated[str, Field(pattern=r"^[0-9]{0,20}$")] = ""
    seen: Annotated[int, Field(ge=0, le=_MOST_SEEN)] = 0
    skip: Annotated[int, Field(ge=0, lt=500)] = 0

    def resized(self, size: int) -> Self:
        """Return the same place with other pages, where it is the beginning of one."""
        return self if self.skip else self.model_copy(update={"size": size})

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
        most: how many of them the caller may have.
    """

    def __init__(
        self, position: Position, metadata: dict[str, object], rows: int, *, most: int
    ) -> None:
        self._position = position
        self._rows = rows
        self._most = most
        self._token = str(metadata.get("continue") or "")
        self._version = str(metadata.get("resourceVersion") or "")
        self._remaining = metadata.get("remainingItemCount")

    @property
    def shown(self) -> slice:
        """Which of its rows the caller gets."""
        return slice(self._position.skip, self._position.skip + self._most)

    @property
    def total(self) -> int | None:
        """How many there are in all; None where the API server does not count (with selectors)."""
        so_far = self._position.seen + self._rows
        if not self._token:
            return so_far
        return so_far + self._remaining if isinstance(self._remaining, int) else None

    @property
    def next_cursor(self) -> str | None:
        """Asks for what comes after what is shown; None: there is nothing."""
        if self.shown.stop < self._rows:
            return self.cursor_after(self._most)
        if not self._token:
            return None
        return self._position.model_copy(
            update={
                "token": self._token,
                "version": "",
                "seen": self._position.seen + self._rows,
                "skip": 0,
            }
        ).encode()

    def summary(self) -> dict[str, Any]:
        """Return what a result says of the page."""
        following = self.next_cursor
        return {"total": self.total, "truncated": following is not None, "next_cursor": following}

    def cursor_after(self, shown: int) -> str:
        """Return the cursor that goes on after the first `shown` rows that were not left out."""
        return self._position.model_copy(
            update={
                "skip": self._position.skip + shown,
                "version": "" if self._position.token else self._version,
            }
        ).encode()
