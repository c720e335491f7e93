"""The CMDB family: its tools and its resource."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from mcp_server.tools.catalog import ListArguments, ListResult, Result, Tool, ToolContext, ToolError
from mcp_server.tools.cmdb.backend import CmdbBackend, CmdbUnavailable, InvalidCursor
from mcp_server.tools.cmdb.model import Asset, AssetPage, AssetQuery
from mcp_server.tools.cmdb.postgres import encode_cursor
from mcp_server.tools.documents import Document

__all__ = ["Cmdb"]

_RESOURCE_LIMIT = 200


class QueryAssetsArguments(ListArguments):
    """Arguments of `query_assets`."""

    asset_type: Literal["server", "database", "application"] | None = None
    environment: Literal["prod", "staging", "dev"] | None = None
    status: Literal["active", "inactive", "maintenance"] | None = None


class AssetRow(Result):
    """One asset as clients see it."""

    id: str
    name: str
    type: str
    environment: str
    status: str
    ip_address: str | None
    owner: str | None
    last_updated: datetime


class QueryAssetsResult(ListResult):
    """One page of assets in the order of their ids."""

    assets: list[AssetRow]


class Cmdb:
    """The CMDB tools over one backend."""

    def __init__(self, backend: CmdbBackend) -> None:
        self._backend = backend

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declarations of this family."""
        return [
            Tool(
                name="cmdb:query_assets",
                title="Query assets",
                description="List the assets of the CMDB, narrowed by type, environment and status.",
                permission="tools:read",
                arguments=QueryAssetsArguments,
                result=QueryAssetsResult,
                run=self._query_assets,
                read_only=True,
                source="the CMDB",
                rows="assets",
                columns=(
                    "id",
                    "name",
                    "type",
                    "environment",
                    "status",
                    "ip_address",
                    "owner",
                    "last_updated",
                ),
            )
        ]

    def resources(self) -> list[Document]:
        """Return the documents of this family."""
        return [
            Document(
                uri="enterprise://cmdb/assets",
                name="cmdb-assets",
                title="CMDB assets",
                description=f"The first {_RESOURCE_LIMIT} assets of the CMDB.",
                permission="tools:read",
                read=self._read_assets,
                source="the CMDB",
            )
        ]

    async def _query_assets(
        self, arguments: QueryAssetsArguments, context: ToolContext
    ) -> QueryAssetsResult:
        query = AssetQuery.model_validate(
            arguments.model_dump(include={"asset_type", "environment", "status"})
        )
        return _result(await self._page(query, context, arguments.limit, arguments.cursor))

    async def _read_assets(self, context: ToolContext, _: Mapping[str, str]) -> str:
        page = await self._page(AssetQuery(), context, _RESOURCE_LIMIT, None)
        return _result(page).model_dump_json()

    async def _page(
        self, query: AssetQuery, context: ToolContext, limit: int, cursor: str | None
    ) -> AssetPage:
        most = context.at_most(limit)
        try:
            return await self._backend.query_assets(
                context.tenant, query, limit=most, cursor=cursor
            )
        except InvalidCursor as error:
            raise ToolError(str(error)) from error
        except CmdbUnavailable as error:
            raise ToolError("the CMDB is not available; try again", retryable=True) from error


def _result(page: AssetPage) -> QueryAssetsResult:
    return QueryAssetsResult(
        assets=[_row(asset) for asset in page.items],
        total=page.total,
        truncated=page.next_cursor is not None,
        next_cursor=page.next_cursor,
    ).with_cursor(lambda rows: encode_cursor(page.items[rows - 1].id))


def _row(asset: Asset) -> AssetRow:
    return AssetRow.model_validate(asset.model_dump(mode="json"))
