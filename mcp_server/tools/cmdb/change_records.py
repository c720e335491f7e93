"""The tool `cmdb:get_change_records`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from mcp_server.redaction import mask_fields
from mcp_server.tools.catalog import ListArguments, ListResult, Result, Scope, Tool, ToolContext
from mcp_server.tools.cmdb.arguments import SOURCE, AssetId, TimeRange
from mcp_server.tools.cmdb.backend import CmdbBackend
from mcp_server.tools.cmdb.model import ChangeRecord
from mcp_server.tools.cursor import Cursor, CursorCipher, fingerprint_of

__all__ = ["ChangeArguments", "change_records"]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# Every change updates these; the summary of a change shows the other fields.
_BOOKKEEPING = ("version", "last_updated")


class ChangeArguments(ListArguments):
    """Arguments of `get_change_records`."""

    asset_id: AssetId
    time_range: TimeRange = "7d"


class Change(Result):
    """One change; `before` and `after` hold the fields that differ."""

    id: int
    time: datetime
    user: str
    change: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str


class Changes(ListResult):
    """One page of an asset's history, newest first."""

    changes: list[Change]


class _Before(Cursor):
    """The last change record of a page."""

    id: Annotated[int, Field(ge=1, lt=2**63)]


def change_records(
    backend: CmdbBackend, cipher: CursorCipher, now: Callable[[], datetime]
) -> Tool[ChangeArguments, Changes]:
    """Return the declaration of `cmdb:get_change_records`.

    Args:
        now: returns the current time with a time zone.
    """
    return Tool(
        name="cmdb:get_change_records",
        title="Change records",
        description="List who changed an asset and why, newest first.",
        permission="tools:read",
        arguments=ChangeArguments,
        result=Changes,
        run=partial(_run, backend, cipher, now),
        read_only=True,
        scope=Scope(asset="asset_id"),
        source=SOURCE,
        rows="changes",
        columns=("id", "time", "user", "change", "reason"),
        revealed_by={"before": ("change",), "after": ("change",)},
    )


async def _run(
    backend: CmdbBackend,
    cipher: CursorCipher,
    now: Callable[[], datetime],
    arguments: ChangeArguments,
    context: ToolContext,
) -> Changes:
    query = fingerprint_of(arguments)
    before = None
    if arguments.cursor is not None:
        before = _Before.decode(cipher, arguments.cursor, query).id
    page = await backend.get_changes(
        context.tenant,
        arguments.asset_id,
        since=now() - _period(arguments.time_range),
        limit=context.at_most(arguments.limit),
        before=before,
    )

    def cursor_after(rows: int) -> str:
        return _Before(query=query, id=page.items[rows - 1].id).encode(cipher)

    return Changes(
        changes=[_change_of(record, context) for record in page.items],
        total=page.total,
        truncated=page.more,
        next_cursor=cursor_after(len(page.items)) if page.more else None,
    ).with_cursor(cursor_after)


def _period(time_range: str) -> timedelta:
    return timedelta(**{_UNITS[time_range[-1]]: int(time_range[:-1])})


def _change_of(record: ChangeRecord, context: ToolContext) -> Change:
    before, after = record.before, record.after
    if before is not None and after is not None:
        fields = [name for name in (*before, *after) if before.get(name) != after.get(name)]
        before = {name: before[name] for name in fields if name in before}
        after = {name: after[name] for name in fields if name in after}
    return Change(
        id=record.id,
        time=record.time,
        user=record.user,
        change=_summary(_masked(before, context), _masked(after, context)),
        reason=record.reason,
        before=before,
        after=after,
        request_id=record.request_id,
    )


def _masked(fields: dict[str, Any] | None, context: ToolContext) -> dict[str, Any] | None:
    return None if fields is None else mask_fields(fields, context.masked)


def _summary(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    if before is None:
        return "created"
    if after is None:
        return "removed"
    names = dict.fromkeys((*before, *after))
    return ", ".join(
        f"{name}: {_text(before.get(name))} -> {_text(after.get(name))}"
        for name in names
        if name not in _BOOKKEEPING
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
