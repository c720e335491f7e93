"""The resources `enterprise://cmdb/assets` and `enterprise://cmdb/assets/{id}`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mcp_server.tools.catalog import Scope, ToolContext
from mcp_server.tools.cmdb.arguments import SOURCE
from mcp_server.tools.cmdb.assets import AssetArguments, list_assets
from mcp_server.tools.cmdb.backend import CmdbBackend
from mcp_server.tools.cmdb.model import AssetQuery, Direction
from mcp_server.tools.cmdb.service_topology import REVEALED_BY, topology_that_fits
from mcp_server.tools.cursor import CursorCipher
from mcp_server.tools.resources import ROWS_BYTES, Resource, rows_that_fit

__all__ = ["asset_resource", "assets_resource"]

_MAX_ASSETS = 200
_MAX_COMPLETIONS = 101  # one more than MCP lets a server return, to know that there are more
_MAX_NEIGHBOURS = 100


def assets_resource(backend: CmdbBackend, cipher: CursorCipher) -> Resource:
    """Return the declaration of the list of assets."""

    async def read(context: ToolContext, _: Mapping[str, str]) -> str:
        # The cursor continues in cmdb_query_assets without other arguments.
        result = await list_assets(backend, cipher, AssetArguments(limit=_MAX_ASSETS), context)
        document = result.model_dump(mode="json")
        rows = rows_that_fit(document["assets"])
        if len(rows) < len(result.assets):
            document |= {
                "assets": rows,
                "truncated": True,
                "next_cursor": result.cursor_after(len(rows)),
            }
        return json.dumps(document)

    return Resource(
        uri="enterprise://cmdb/assets",
        name="cmdb-assets",
        title="CMDB assets",
        description=f"The first {_MAX_ASSETS} assets of the CMDB.",
        permission="tools:read",
        read=read,
        source=SOURCE,
    )


def asset_resource(backend: CmdbBackend) -> Resource:
    """Return the declaration of one asset with its neighbours."""

    async def read(context: ToolContext, parameters: Mapping[str, str]) -> str:
        asset = await backend.get_asset(context.tenant, parameters["id"])
        around = await backend.get_topology(
            context.tenant,
            asset.id,
            direction=Direction.BOTH,
            depth=1,
            most_nodes=context.at_most(_MAX_NEIGHBOURS),
        )
        neighbours = topology_that_fits(
            around,
            lambda result: len(result.model_dump_json().encode()) <= ROWS_BYTES,
            requested=None,
        )
        return json.dumps(
            {
                "asset": asset.model_dump(mode="json"),
                "neighbours": neighbours.model_dump(mode="json"),
            }
        )

    async def complete(
        _parameter: str, text: str, _given: Mapping[str, str], context: ToolContext
    ) -> list[str]:
        if "\0" in text:
            return []
        query = AssetQuery(id_prefix=text or None)
        page = await backend.query_assets(context.tenant, query, limit=_MAX_COMPLETIONS)
        return [asset.id for asset in page.items]

    return Resource(
        uri="enterprise://cmdb/assets/{id}",
        name="cmdb-asset",
        title="CMDB asset",
        description="One asset and its relations.",
        permission="tools:read",
        read=read,
        source=SOURCE,
        complete=complete,
        scope=Scope(asset="id"),
        revealed_by=REVEALED_BY,
    )
