"""The interface of CMDB backends, and their errors."""

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
"""Name of the backend in messages."""

VERIFY_HINT = "look with cmdb_get_change_records whether it is recorded"
"""How a caller finds out whether a status was set."""

MOST_NODES = 10_000
"""Maximum assets of a topology; the search ends there."""


class AssetNotFound(ToolError):
    """The tenant has no such asset; the error does not reveal whether another tenant has one."""

    def __init__(self, asset: str) -> None:
        super().__init__(f"the {NAME} has no asset {asset!r}")


def _as_it_is(value: object, _name: str) -> object:
    return value


class AssetChanged(ToolError):
    """The asset is not in the state that the caller expected; nothing was changed.

    Args:
        masked_value: masks the value of a field for the caller, if the policy requires it.
    """

    def __init__(
        self, asset: Asset, masked_value: Callable[[object, str], object] = _as_it_is
    ) -> None:
        changed = f"{asset.last_updated:%Y-%m-%d %H:%M:%S} UTC"
        super().__init__(
            f"asset {asset.id!r} is not as expected: it is {masked_value(asset.status, 'status')} "
            f"at version {masked_value(asset.version, 'version')} "
            f"(changed {masked_value(changed, 'last_updated')}); nothing was changed; read it again "
            "before you decide"
        )
        self.asset = asset


class CmdbBackend(Protocol):
    """A CMDB. Every call sees the data of one tenant only.

    Every method raises `BackendUnavailable` while the CMDB does not answer.
    """

    async def start(self) -> None:
        """Prepare the backend for requests."""
        ...

    async def stop(self) -> None:
        """Release the backend's resources."""
        ...

    async def query_assets(
        self, tenant: str, query: AssetQuery, *, limit: int, after: str | None = None
    ) -> AssetPage:
        """Return one page of the assets that match a query.

        Args:
            tenant: tenant whose assets are searched.
            query: the filters.
            limit: maximum assets on the page; at least 1.
            after: id of the last asset of the previous page; None: the first page.
        """
        ...

    async def get_asset(self, tenant: str, asset_id: str) -> Asset:
        """Return one asset.

        Raises:
            AssetNotFound: the tenant has no asset with this id.
        """
        ...

    async def get_topology(
        self, tenant: str, service: str, *, direction: Direction, depth: int, most_nodes: int
    ) -> Topology:
        """Return the assets around a service and their relations.

        Args:
            tenant: tenant of the service.
            service: id of an asset; if no asset has this id, the name of one or more assets.
            direction: direction in which relations are followed.
            depth: maximum number of relations from the service.
            most_nodes: maximum assets to return, the nearest first.

        Raises:
            AssetNotFound: the tenant has no asset with this id or name.
        """
        ...

    async def update_status(
        self, tenant: str, asset_id: str, change: StatusChange
    ) -> StatusChanged:
        """Set the status of an asset and write the change record, in one transaction.

        Raises:
            AssetNotFound: the tenant has no asset with this id.
            AssetChanged: the version or the status differs from the expected one.
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
        """Return one page of the history of an asset, newest record first.

        The history of an asset outlives the asset.

        Args:
            since: return only records of this time and later.
            before: id of the last record of the previous page; None: the first page.

        Raises:
            AssetNotFound: the tenant has neither the asset nor records of it.
        """
        ...
