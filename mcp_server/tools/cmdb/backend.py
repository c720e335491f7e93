"""Where assets come from: one interface, several backends."""

from __future__ import annotations

from typing import Protocol

from mcp_server.tools.cmdb.model import AssetPage, AssetQuery

__all__ = ["CmdbBackend", "CmdbUnavailable", "InvalidCursor"]


class CmdbUnavailable(Exception):
    """The CMDB does not answer now; trying again later may help."""


class InvalidCursor(ValueError):
    """The cursor is not one that this CMDB gave out."""


class CmdbBackend(Protocol):
    """A CMDB. Every call sees the data of one tenant only."""

    async def query_assets(
        self, tenant: str, query: AssetQuery, *, limit: int, cursor: str | None = None
    ) -> AssetPage:
        """Return the assets that match, a page at a time.

        Args:
            tenant: whose assets.
            query: which of them.
            limit: at most so many on the page (1 or more).
            cursor: `next_cursor` of the page before, None for the first.

        Raises:
            InvalidCursor: the cursor was not made by this backend.
            CmdbUnavailable: the CMDB does not answer.
        """
        ...
