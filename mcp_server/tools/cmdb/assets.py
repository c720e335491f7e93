"""The tool `cmdb:query_assets`, and the page of assets that the resource shares with it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mcp_server.tools.catalog import ListArguments, ListResult, Tool, ToolContext
from mcp_server.tools.cmdb.arguments import SOURCE, Status, Text, storable
from mcp_server.tools.cmdb.backend import CmdbBackend
from mcp_server.tools.cmdb.model import Asset, AssetQuery
from mcp_server.tools.cursor import Cursor, CursorCipher, fingerprint_of

__all__ = ["AssetArguments", "Assets", "list_assets", "query_assets"]


class AssetArguments(ListArguments):
    """Arguments of `query_assets`."""

    asset_type: Annotated[
        Literal["server", "database", "application"] | None,
        Field(description="Only assets of this type"),
    ] = None
    environment: Annotated[
        Literal["prod", "staging", "dev"] | None,
        Field(description="Only assets of this environment"),
    ] = None
    status: Annotated[Status | None, Field(description="Only assets of this status")] = None
    name_prefix: Annotated[Text | None, Field(description="Prefix of the name")] = None
    owner: Annotated[Text | None, Field(description="Exact name of the owner")] = None


class Assets(ListResult):
    """One page of assets in the order of their ids."""

    assets: list[Asset]


class _After(Cursor):
    """The last asset of a page."""

    id: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(storable)]


def query_assets(backend: CmdbBackend, cipher: CursorCipher) -> Tool[AssetArguments, Assets]:
    """Return the declaration of `cmdb:query_assets`."""
    return Tool(
        name="cmdb:query_assets",
        title="Query assets",
        description="List assets of the CMDB.",
        permission="tools:read",
        arguments=AssetArguments,
        result=Assets,
        run=partial(list_assets, backend, cipher),
        read_only=True,
        source=SOURCE,
        rows="assets",
        columns=tuple(Asset.model_fields),
    )


async def list_assets(
    backend: CmdbBackend, cipher: CursorCipher, arguments: AssetArguments, context: ToolContext
) -> Assets:
    """Return one page of assets."""
    query = fingerprint_of(arguments)
    after = None
    if arguments.cursor is not None:
        after = _After.decode(cipher, arguments.cursor, query).id
    page = await backend.query_assets(
        context.tenant,
        AssetQuery.model_validate(
            arguments.model_dump(exclude={"limit", "cursor", "fields"}, exclude_none=True)
        ),
        limit=context.at_most(arguments.limit),
        after=after,
    )

    def cursor_after(rows: int) -> str:
        return _After(query=query, id=page.items[rows - 1].id).encode(cipher)

    return Assets(
        assets=list(page.items),
        total=page.total,
        truncated=page.more,
        next_cursor=cursor_after(len(page.items)) if page.more else None,
    ).with_cursor(cursor_after)
