"""Where assets come from: one interface, several backends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from mcp_server.tools.catalog import ToolError
from mcp_server.tools.cmdb.model import (
    Asset,
    AssetPage,
    AssetQuery,
    ChangePage,
    Direction,
    StatusChange,
    StatusChanged,
    Topology,
)

__all__ = [
    "MOST_NODES",
    "NAME",
    "VERIFY_HINT",
    "AssetChanged",
    "AssetNotFound",
    "CmdbBackend",
]

NAME = "CMDB"
"""How messages call it."""

VERIFY_HINT = "look with cmdb_get_change_records whether it is recorded"
"""How a caller learns whether a status was set."""

MOST_NODES = 10_000
"""Assets that a topology finds at most; the search ends there."""


class AssetNotFound(ToolError):
    """The tenant has no such asset; whether another tenant has one is not told."""

    def __init__(self, asset: str) -> None:
        super().__init__(f"the {NAME} has no asset {asset!r}")


def _as_it_is(value: object, _name: str) -> object:
    return value


class AssetChanged(ToolError):
    """The asset is not in the state that the caller expected; nothing was changed.

    Args:
        shown: returns what a caller may see of a field's value.
    """

    def __init__(self, asset: Asset, shown: Callable[[object, str], object] = _as_it_is) -> None:
        changed = f"{asset.last_updated:%Y-%m-%d %H:%M:%S} UTC"
        super().__init__(
            f"asset {asset.id!r} is not as expected: it is {shown(asset.status, 'status')} at version "
            f"{shown(asset.version, 'version')} (changed {shown(changed, 'last_updated')}); nothing was "
            "changed; look at it again and decide anew"
        )
        self.asset = asset


class CmdbBackend(Protocol):
    """A CMDB. Every call sees the data of one tenant only.

    Every method raises `BackendUnavailable` while the CMDB does not answer.
    """

    async def start(self) -> None:
        """Open what is needed to ask."""
        ...

    async def stop(self) -> None:
        """Close it."""
        ...

    async def query_assets(
        self, tenant: str, query: AssetQuery, *, limit: int, after: str | None = None
    ) -> AssetPage:
        """Return the assets that match, a page at a time.

        Args:
            tenant: whose assets.
            query: which of them.
            limit: at most so many on the page (1 or more).
            after: the id after which the page begins; None: the first page.
        """
        ...

    async def get_asset(self, tenant: str, asset_id: str) -> Asset:
        """Return one asset.

        Raises:
            AssetNotFound: the tenant has none of this id.
        """
        ...

    async def get_topology(
        self, tenant: str, service: str, *, direction: Direction, depth: int, most_nodes: int
    ) -> Topology:
        """Return what is around a service.

        Args:
            tenant: whose service.
            service: id of an asset, or else the name of one or more.
            direction: which way relations are followed.
            depth: how many relations far.
            most_nodes: return only so many assets, the nearest.

        Raises:
            AssetNotFound: the tenant has no asset of this id or name.
        """
        ...

    async def update_status(
        self, tenant: str, asset_id: str, change: StatusChange
    ) -> StatusChanged:
        """Set the status of an asset and write the change record, both or none.

        Raises:
            AssetNotFound: the tenant has none of this id.
            AssetChanged: version or status are not the expected ones.
        """
        ...

    async def get_changes(
        self,
        tenant: str,
        asset_id: str,
        *,
        since: datetime,
        limit: int,
        before: int | None = None,
    ) -> ChangePage:
        """Return the history of an asset, the newest record first, a page at a time.

        The history of an asset that was removed is still there.

        Args:
            since: only records of this time and later.
            before: the id of the record after which (in time: before which) the page begins.

        Raises:
            AssetNotFound: the tenant has neither such an asset nor records of one.
        """
        ...
