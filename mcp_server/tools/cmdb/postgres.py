"""The embedded CMDB: tables of the schema cmdb, separated by tenant with row level security."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from mcp_server.database import Database, DatabaseUnavailable
from mcp_server.tools.cmdb.backend import CmdbUnavailable, InvalidCursor
from mcp_server.tools.cmdb.model import Asset, AssetPage, AssetQuery

__all__ = ["PostgresCmdb", "decode_cursor", "encode_cursor"]

_CURSOR_VERSION = b"1:"

# The tenant is not compared here: the row level security of the table does it for every statement,
# and without a tenant shows nothing.
_MATCHES = """
    FROM cmdb.assets
    WHERE ($1::text IS NULL OR type = $1)
      AND ($2::text IS NULL OR environment = $2)
      AND ($3::text IS NULL OR status = $3)
"""
_COUNT = f"SELECT count(*) {_MATCHES}"
_PAGE = f"""
    SELECT id, name, type, environment, status, ip_address, owner, last_updated {_MATCHES}
      AND ($4::text IS NULL OR id > $4)
    ORDER BY id
    LIMIT $5
"""


class PostgresCmdb:
    """A `CmdbBackend` on PostgreSQL.

    Args:
        database: an open pool; its role has SELECT on the tables of cmdb.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def query_assets(
        self, tenant: str, query: AssetQuery, *, limit: int, cursor: str | None = None
    ) -> AssetPage:
        """See `CmdbBackend.query_assets`."""
        after = None if cursor is None else decode_cursor(cursor)
        async with self._tenant(tenant) as connection:
            filters = (query.asset_type, query.environment, query.status)
            total = await connection.fetchval(_COUNT, *filters)
            rows = await connection.fetch(_PAGE, *filters, after, limit + 1)
        items = tuple(Asset.model_validate(dict(row)) for row in rows[:limit])
        return AssetPage(
            items=items,
            total=total,
            next_cursor=encode_cursor(items[-1].id) if len(rows) > limit else None,
        )

    @asynccontextmanager
    async def _tenant(self, tenant: str) -> AsyncIterator[asyncpg.Connection]:
        try:
            async with self._database.transaction(
                readonly=True, isolation="repeatable_read"
            ) as connection:
                await connection.execute("SELECT set_config('mcp.tenant', $1, true)", tenant)
                yield connection
        except DatabaseUnavailable as error:
            raise CmdbUnavailable(str(error)) from error


def encode_cursor(last_id: str) -> str:
    """Return the opaque cursor that continues after the asset `last_id`."""
    raw = _CURSOR_VERSION + last_id.encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_cursor(cursor: str) -> str:
    """Return the id after which the cursor continues.

    Raises:
        InvalidCursor: `encode_cursor` did not make it.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        last_id = raw.removeprefix(_CURSOR_VERSION).decode()
    except (UnicodeError, binascii.Error):
        last_id = ""
    if not last_id or "\0" in last_id or encode_cursor(last_id) != cursor:
        raise InvalidCursor("the cursor is not valid; use next_cursor of the page before")
    return last_id
