"""The CMDB family: its backend, tools and resources."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mcp_server.tools.catalog import Tool
from mcp_server.tools.cmdb.asset_status import update_asset_status
from mcp_server.tools.cmdb.assets import query_assets
from mcp_server.tools.cmdb.backend import CmdbBackend
from mcp_server.tools.cmdb.change_records import change_records
from mcp_server.tools.cmdb.resources import asset_resource, assets_resource
from mcp_server.tools.cmdb.service_topology import service_topology
from mcp_server.tools.cursor import CursorCipher
from mcp_server.tools.resources import Resource

__all__ = ["Cmdb"]


class Cmdb:
    """The CMDB tools and resources over one backend.

    Args:
        backend: the CMDB; started and stopped with the family.
        cipher: encrypts cursors; None: cursors are valid for this object only.
        now: returns the current time with a time zone.
    """

    def __init__(
        self,
        backend: CmdbBackend,
        *,
        cipher: CursorCipher | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._backend = backend
        self._cipher = cipher or CursorCipher()
        self._now = now

    async def start(self) -> None:
        """Start the backend."""
        await self._backend.start()

    async def stop(self) -> None:
        """Stop the backend."""
        await self._backend.stop()

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declarations of the tools."""
        return [
            query_assets(self._backend, self._cipher),
            service_topology(self._backend),
            update_asset_status(self._backend),
            change_records(self._backend, self._cipher, self._now),
        ]

    def resources(self) -> list[Resource]:
        """Return the declarations of the resources."""
        return [assets_resource(self._backend, self._cipher), asset_resource(self._backend)]
