"""The tool `cmdb:update_asset_status`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mcp_server.tools.catalog import Arguments, Result, Scope, Tool, ToolContext
from mcp_server.tools.cmdb.arguments import SOURCE, AssetId, Status, storable
from mcp_server.tools.cmdb.backend import VERIFY_HINT, AssetChanged, CmdbBackend
from mcp_server.tools.cmdb.model import Asset, AssetStatus, StatusChange
from mcp_server.tools.validation import not_blank

__all__ = ["update_asset_status"]


class StatusArguments(Arguments):
    """Arguments of `update_asset_status`."""

    asset_id: AssetId
    status: Annotated[Status, Field(description="New status")]
    reason: Annotated[
        str,
        Field(description="For the change record", min_length=1, max_length=1000),
        AfterValidator(storable),
        AfterValidator(not_blank),
    ]
    expected_version: Annotated[
        int | None, Field(ge=1, description="Refuse if the version differs")
    ] = None
    expected_status: Annotated[Status | None, Field(description="Refuse if the status differs")] = (
        None
    )


class StatusUpdate(Result):
    """The asset before and after. If it had the status already, no record is written."""

    changed: bool
    before: Asset
    after: Asset
    change_id: int | None


def update_asset_status(backend: CmdbBackend) -> Tool[StatusArguments, StatusUpdate]:
    """Return the declaration of `cmdb:update_asset_status`."""
    return Tool(
        name="cmdb:update_asset_status",
        title="Update asset status",
        description="Set an asset's status; records who and why.",
        permission="tools:execute",
        arguments=StatusArguments,
        result=StatusUpdate,
        run=partial(_run, backend),
        render=_render,
        read_only=False,
        # It replaces a value, which the specification of MCP counts as destructive.
        destructive=True,
        verify_hint=VERIFY_HINT,
        scope=Scope(asset="asset_id"),
        source=SOURCE,
    )


async def _run(
    backend: CmdbBackend, arguments: StatusArguments, context: ToolContext
) -> StatusUpdate:
    expected = arguments.expected_status
    change = StatusChange(
        status=AssetStatus(arguments.status),
        reason=arguments.reason,
        user=context.user,
        request_id=context.request_id,
        expected_version=arguments.expected_version,
        expected_status=None if expected is None else AssetStatus(expected),
    )
    try:
        done = await backend.update_status(context.tenant, arguments.asset_id, change)
    except AssetChanged as error:
        raise AssetChanged(error.asset, context.masked_value) from error
    return StatusUpdate(
        changed=done.change_id is not None,
        before=done.before,
        after=done.after,
        change_id=done.change_id,
    )


def _render(document: Mapping[str, Any]) -> str:
    before, after = (
        each if isinstance(each, dict) else dict.fromkeys(Asset.model_fields, each)
        for each in (document["before"], document["after"])
    )
    if not document["changed"]:
        return f"{after['id']} is {after['status']} already; nothing was changed."
    return (
        f"{after['id']} ({after['name']}): {before['status']} -> {after['status']}, "
        f"now version {after['version']}; change record {document['change_id']}."
    )
