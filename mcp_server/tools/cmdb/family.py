"""The CMDB family: its tools and its documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from mcp_server.redaction import mask_fields
from mcp_server.tools.catalog import (
    Arguments,
    ListArguments,
    ListResult,
    Result,
    Scope,
    Tool,
    ToolContext,
)
from mcp_server.tools.cmdb.backend import NAME, VERIFY_HINT, AssetChanged, CmdbBackend
from mcp_server.tools.cmdb.model import (
    Asset,
    AssetPage,
    AssetQuery,
    AssetStatus,
    ChangeRecord,
    Direction,
    Node,
    StatusChange,
    Topology,
)
from mcp_server.tools.cmdb.topology import mermaid
from mcp_server.tools.cursor import Cursor, CursorCipher, fingerprint_of
from mcp_server.tools.offload import offload
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES, sent_bytes
from mcp_server.tools.resources import ROWS_BYTES, Resource, rows_that_fit
from mcp_server.tools.validation import TextFormat, not_blank

__all__ = ["AssetId", "Cmdb", "ServiceName", "TimeRange"]

_SOURCE = f"the {NAME}"
_RESOURCE_LIMIT = 200
_COMPLETIONS = 101  # one more than MCP lets a server return, to know that there are more
_NEIGHBOURS = 100
_MOST_NODES = 500
# What the marks around the text and the punctuation of the answer may take.
_TOPOLOGY_BUDGET_BYTES = RESULT_BUDGET_BYTES - 1024
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# Relations name the assets of a topology by their ids.
_REVEALED_BY = {"id": ("from", "to"), "nodes": ("edges",)}
# Every change moves these; what it was about are the other fields.
_BOOKKEEPING = ("version", "last_updated")

Status = Literal["active", "inactive", "maintenance"]


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


Text = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_storable)]
AssetId = Annotated[Text, Field(description="Id of an asset, as cmdb_query_assets lists it")]
ServiceName = Annotated[Text, Field(description="Name or id of the service")]
TimeRange = Annotated[
    str,
    Field(description="Back from now, in m, h, d or w"),
    TextFormat(
        r"^[1-9][0-9]{0,3}[mhdw]$", "must be a number from 1 to 9999 and m, h, d or w, such as 7d"
    ),
]


class _AfterAsset(Cursor):
    """The last asset that was shown."""

    id: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_storable)]


class _BeforeRecord(Cursor):
    """The last change record that was shown."""

    id: Annotated[int, Field(ge=1, lt=2**63)]


class QueryAssetsArguments(ListArguments):
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
    version: int


class QueryAssetsResult(ListResult):
    """One page of assets in the order of their ids."""

    assets: list[AssetRow]


class TopologyArguments(Arguments):
    """Arguments of `get_service_topology`."""

    service_name: ServiceName
    direction: Annotated[
        Literal["down", "up", "both"],
        Field(description="down: what it needs; up: what needs it"),
    ] = "both"
    depth: Annotated[int, Field(ge=1, le=20, description="Maximum relations from the service")] = 3
    max_nodes: Annotated[
        int, Field(description="Maximum assets, nearest first", ge=1, le=_MOST_NODES)
    ] = 100


class NodeRow(Result):
    """One asset of a topology; `depth` counts the relations between it and the service."""

    id: str
    name: str
    type: str
    status: str
    depth: int


class EdgeRow(Result):
    """One relation: `from` depends on `to`."""

    model_config = ConfigDict(serialize_by_alias=True)

    origin: str = Field(serialization_alias="from")
    target: str = Field(serialization_alias="to")
    type: str


class TopologyResult(Result):
    """The assets around a service, the nearest first."""

    model_config = ConfigDict(serialize_by_alias=True)

    nodes: list[NodeRow]
    edges: list[EdgeRow]
    total: int | None
    """Nodes in all; None: more than 10,000."""
    truncated: bool
    more: str | None
    """How to get more, where it is truncated."""


class UpdateStatusArguments(Arguments):
    """Arguments of `update_asset_status`."""

    asset_id: AssetId
    status: Annotated[Status, Field(description="New status")]
    reason: Annotated[
        str,
        Field(description="For the change record", min_length=1, max_length=1000),
        AfterValidator(_storable),
        AfterValidator(not_blank),
    ]
    expected_version: Annotated[
        int | None, Field(ge=1, description="Refuse if the version differs")
    ] = None
    expected_status: Annotated[Status | None, Field(description="Refuse if the status differs")] = (
        None
    )


class UpdateStatusResult(Result):
    """The asset before and after; without a change (it had the status) no record is written."""

    changed: bool
    before: AssetRow
    after: AssetRow
    change_id: int | None


class ChangeRecordsArguments(ListArguments):
    """Arguments of `get_change_records`."""

    asset_id: AssetId
    time_range: TimeRange = "7d"


class ChangeRow(Result):
    """One change; `before` and `after` hold the fields that differ."""

    id: int
    time: datetime
    user: str
    change: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str


class ChangeRecordsResult(ListResult):
    """One page of an asset's history, the newest first."""

    changes: list[ChangeRow]


class Cmdb:
    """The CMDB tools over one backend.

    Args:
        backend: where the assets are; started and stopped with the family.
        now: tells the time, with a time zone.
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
        """Return the declarations of this family."""
        return [
            Tool(
                name="cmdb:query_assets",
                title="Query assets",
                description="List assets of the CMDB.",
                permission="tools:read",
                arguments=QueryAssetsArguments,
                result=QueryAssetsResult,
                run=self._query_assets,
                read_only=True,
                source=_SOURCE,
                rows="assets",
                columns=tuple(AssetRow.model_fields),
            ),
            Tool(
                name="cmdb:get_service_topology",
                title="Service topology",
                description="Find and draw the dependencies around a service.",
                permission="tools:read",
                arguments=TopologyArguments,
                result=TopologyResult,
                run=self._get_topology,
                render=_topology_text,
                revealed_by=_REVEALED_BY,
                read_only=True,
                source=_SOURCE,
            ),
            Tool(
                name="cmdb:update_asset_status",
                title="Update asset status",
                description="Set an asset's status; records who and why.",
                permission="tools:execute",
                arguments=UpdateStatusArguments,
                result=UpdateStatusResult,
                run=self._update_status,
                render=_update_text,
                read_only=False,
                # It replaces a value, which the specification of MCP counts as destructive.
                destructive=True,
                verify_hint=VERIFY_HINT,
                scope=Scope(asset="asset_id"),
                source=_SOURCE,
            ),
            Tool(
                name="cmdb:get_change_records",
                title="Change records",
                description="List who changed an asset and why, newest first.",
                permission="tools:read",
                arguments=ChangeRecordsArguments,
                result=ChangeRecordsResult,
                run=self._get_changes,
                read_only=True,
                scope=Scope(asset="asset_id"),
                source=_SOURCE,
                rows="changes",
                columns=("id", "time", "user", "change", "reason"),
                revealed_by={"before": ("change",), "after": ("change",)},
            ),
        ]

    def resources(self) -> list[Resource]:
        """Return the documents of this family."""
        return [
            Resource(
                uri="enterprise://cmdb/assets",
                name="cmdb-assets",
                title="CMDB assets",
                description=f"The first {_RESOURCE_LIMIT} assets of the CMDB.",
                permission="tools:read",
                read=self._read_assets,
                source=_SOURCE,
            ),
            Resource(
                uri="enterprise://cmdb/assets/{id}",
                name="cmdb-asset",
                title="CMDB asset",
                description="One asset and its relations.",
                permission="tools:read",
                read=self._read_asset,
                source=_SOURCE,
                complete=self._complete,
                scope=Scope(asset="id"),
                revealed_by=_REVEALED_BY,
            ),
        ]

    async def _query_assets(
        self, arguments: QueryAssetsArguments, context: ToolContext
    ) -> QueryAssetsResult:
        listed = fingerprint_of(arguments)
        after = (
            None
            if arguments.cursor is None
            else _AfterAsset.decode(self._cipher, arguments.cursor, listed)
        )
        page = await self._backend.query_assets(
            context.tenant,
            AssetQuery.model_validate(
                arguments.model_dump(exclude={"limit", "cursor", "fields"}, exclude_none=True)
            ),
            limit=context.at_most(arguments.limit),
            after=None if after is None else after.id,
        )
        return _assets(page, listed, self._cipher)

    async def _get_topology(
        self, arguments: TopologyArguments, context: ToolContext
    ) -> TopologyResult:
        topology = await self._backend.get_topology(
            context.tenant,
            arguments.service_name,
            direction=Direction(arguments.direction),
            depth=arguments.depth,
            most_nodes=context.at_most(arguments.max_nodes),
        )
        # Each try draws all of it.
        size = 10 * (len(topology.nodes) + len(topology.edges))
        return await offload(size, _fitted, topology, _fits_an_answer, asked=arguments.max_nodes)

    async def _update_status(
        self, arguments: UpdateStatusArguments, context: ToolContext
    ) -> UpdateStatusResult:
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
            done = await self._backend.update_status(context.tenant, arguments.asset_id, change)
        except AssetChanged as error:
            raise AssetChanged(error.asset, context.masked_value) from error
        return UpdateStatusResult(
            changed=done.change_id is not None,
            before=_row(done.before),
            after=_row(done.after),
            change_id=done.change_id,
        )

    async def _get_changes(
        self, arguments: ChangeRecordsArguments, context: ToolContext
    ) -> ChangeRecordsResult:
        listed = fingerprint_of(arguments)
        last = (
            None
            if arguments.cursor is None
            else _BeforeRecord.decode(self._cipher, arguments.cursor, listed)
        )
        page = await self._backend.get_changes(
            context.tenant,
            arguments.asset_id,
            since=self._now() - _period(arguments.time_range),
            limit=context.at_most(arguments.limit),
            before=None if last is None else last.id,
        )

        def cursor_after(rows: int) -> str:
            return _BeforeRecord(query=listed, id=page.items[rows - 1].id).encode(self._cipher)

        return ChangeRecordsResult(
            changes=[_change(record, context) for record in page.items],
            total=page.total,
            truncated=page.more,
            next_cursor=cursor_after(len(page.items)) if page.more else None,
        ).with_cursor(cursor_after)

    async def _read_assets(self, context: ToolContext, _: Mapping[str, str]) -> str:
        page = await self._backend.query_assets(
            context.tenant, AssetQuery(), limit=context.at_most(_RESOURCE_LIMIT)
        )
        # Its cursor goes on in cmdb_query_assets called without arguments.
        result = _assets(page, fingerprint_of(QueryAssetsArguments()), self._cipher)
        document = result.model_dump(mode="json")
        shown = rows_that_fit(document["assets"])
        if len(shown) < len(page.items):
            document |= {
                "assets": shown,
                "truncated": True,
                "next_cursor": result.cursor_after(len(shown)),
            }
        return json.dumps(document)

    async def _read_asset(self, context: ToolContext, parameters: Mapping[str, str]) -> str:
        asset = await self._backend.get_asset(context.tenant, parameters["id"])
        around = await self._backend.get_topology(
            context.tenant,
            asset.id,
            direction=Direction.BOTH,
            depth=1,
            most_nodes=context.at_most(_NEIGHBOURS),
        )
        neighbours = _fitted(
            around,
            lambda result: len(result.model_dump_json().encode()) <= ROWS_BYTES,
            asked=None,
        )
        return json.dumps(
            {
                "asset": _row(asset).model_dump(mode="json"),
                "neighbours": neighbours.model_dump(mode="json"),
            }
        )

    async def _complete(
        self, _parameter: str, text: str, _given: Mapping[str, str], context: ToolContext
    ) -> list[str]:
        if "\0" in text:
            return []
        page = await self._backend.query_assets(
            context.tenant, AssetQuery(id_prefix=text or None), limit=_COMPLETIONS
        )
        return [asset.id for asset in page.items]


def _assets(page: AssetPage, listed: str, cipher: CursorCipher) -> QueryAssetsResult:
    """Return a page of the list of that fingerprint."""

    def cursor_after(rows: int) -> str:
        return _AfterAsset(query=listed, id=page.items[rows - 1].id).encode(cipher)

    return QueryAssetsResult(
        assets=[_row(asset) for asset in page.items],
        total=page.total,
        truncated=page.more,
        next_cursor=cursor_after(len(page.items)) if page.more else None,
    ).with_cursor(cursor_after)


def _row(asset: Asset) -> AssetRow:
    return AssetRow.model_validate(asset.model_dump(mode="json"))


def _period(time_range: str) -> timedelta:
    return timedelta(**{_UNITS[time_range[-1]]: int(time_range[:-1])})


def _fits_an_answer(result: TopologyResult) -> bool:
    document = result.model_dump(mode="json")
    return sent_bytes(document, _topology_text(document)) <= _TOPOLOGY_BUDGET_BYTES


def _fitted(
    topology: Topology, fits: Callable[[TopologyResult], bool], *, asked: int | None
) -> TopologyResult:
    """Return the result with as many nodes, the nearest, as fit.

    Args:
        asked: how many nodes the caller asked for; None: it could not ask.
    """
    whole = _topology(topology, len(topology.nodes), asked)
    if fits(whole):
        return whole
    low, high = 0, len(topology.nodes) - 1
    while low < high:
        middle = (low + high + 1) // 2
        fit = fits(_topology(topology, middle, asked))
        low, high = (middle, high) if fit else (low, middle - 1)
    return _topology(topology, low, asked)


def _topology(topology: Topology, count: int, asked: int | None) -> TopologyResult:
    nodes = topology.nodes[:count]
    truncated = topology.total != len(nodes)
    ids = {node.id for node in nodes}
    return TopologyResult(
        nodes=[_node(node) for node in nodes],
        edges=[
            EdgeRow(origin=edge.origin, target=edge.target, type=edge.type)
            for edge in topology.edges
            if edge.origin in ids and edge.target in ids
        ],
        total=topology.total,
        truncated=truncated,
        more=_how_to_get_more(len(nodes), asked) if truncated else None,
    )


def _how_to_get_more(shown: int, asked: int | None) -> str:
    """Return what a caller who asked for so many nodes can do; see `_fitted`.

    Where fewer are shown than were asked for, an answer or the policy holds no more: asking for more of
    them would not help.
    """
    if asked is None:
        return "cmdb_get_service_topology shows more, and what is further away"
    raised = f"raise max_nodes (at most {_MOST_NODES}), or " if shown == asked < _MOST_NODES else ""
    return (
        f"{raised}go on from an outer asset: its id as service_name; less depth or one direction "
        "finds fewer"
    )


def _node(node: Node) -> NodeRow:
    return NodeRow.model_validate(node.model_dump(mode="json"))


def _topology_text(document: Mapping[str, Any]) -> str:
    nodes, edges, total = document["nodes"], document["edges"], document["total"]
    if not isinstance(nodes, list):
        return f"nodes: {nodes}"
    drawn = edges if isinstance(edges, list) else []
    text = f"```mermaid\n{mermaid(nodes, drawn)}\n```"
    if document["truncated"] is True:
        of = "more than 10000" if total is None else total
        text += f"\nThe nearest {len(nodes)} of {of} assets; {document['more']}."
    return text


def _update_text(document: Mapping[str, Any]) -> str:
    before, after = (
        each if isinstance(each, dict) else dict.fromkeys(AssetRow.model_fields, each)
        for each in (document["before"], document["after"])
    )
    if not document["changed"]:
        return f"{after['id']} is {after['status']} already; nothing was changed."
    return (
        f"{after['id']} ({after['name']}): {before['status']} -> {after['status']}, "
        f"now version {after['version']}; change record {document['change_id']}."
    )


def _change(record: ChangeRecord, context: ToolContext) -> ChangeRow:
    before, after = record.before, record.after
    if before is not None and after is not None:
        fields = [name for name in (*before, *after) if before.get(name) != after.get(name)]
        before = {name: before[name] for name in fields if name in before}
        after = {name: after[name] for name in fields if name in after}
    return ChangeRow(
        id=record.id,
        time=record.time,
        user=record.user,
        change=_what_changed(_masked(before, context), _masked(after, context)),
        reason=record.reason,
        before=before,
        after=after,
        request_id=record.request_id,
    )


def _masked(fields: dict[str, Any] | None, context: ToolContext) -> dict[str, Any] | None:
    return None if fields is None else mask_fields(fields, context.masked)


def _what_changed(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    if before is None:
        return "created"
    if after is None:
        return "removed"
    names = dict.fromkeys((*before, *after))
    return ", ".join(
        f"{name}: {_shown(before.get(name))} -> {_shown(after.get(name))}"
        for name in names
        if name not in _BOOKKEEPING
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
