"""The tool `monitoring:list_metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated

from pydantic import Field

from mcp_server.tools.catalog import ListArguments, ListResult, Result, Tool, ToolContext
from mcp_server.tools.cursor import (
    LONGEST_KEY,
    Cursor,
    CursorCipher,
    bounded_key,
    fingerprint_of,
)
from mcp_server.tools.gather import gather_or_cancel
from mcp_server.tools.monitoring.names import NearNames
from mcp_server.tools.monitoring.prometheus import Metadata, Prometheus
from mcp_server.tools.text import notes

__all__ = ["list_metrics"]

_FAMILY_SUFFIXES = ("_bucket", "_count", "_sum", "_total", "_created")


class ListMetricsArguments(ListArguments):
    """Arguments of `list_metrics`."""

    contains: Annotated[
        str | None, Field(max_length=256, description="Part of the name, ignoring case")
    ] = None


class _AfterName(Cursor):
    """The last name of a page."""

    name: Annotated[str, Field(max_length=LONGEST_KEY)]


class MetricRow(Result):
    """One metric; fields that its exporter does not describe are empty."""

    name: str
    type: str
    unit: str
    help: str


class ListMetricsResult(ListResult):
    """Metrics in the order of their names."""

    metrics: list[MetricRow]
    notes: tuple[str, ...]
    """Similar names, if none matches."""


def list_metrics(
    prometheus: Prometheus, cipher: CursorCipher, near: NearNames
) -> Tool[ListMetricsArguments, ListMetricsResult]:
    """Return the declaration of `monitoring:list_metrics`."""
    return Tool(
        name="monitoring:list_metrics",
        title="List metrics",
        description="List metrics with type, unit and help.",
        permission="metrics:query",
        arguments=ListMetricsArguments,
        result=ListMetricsResult,
        run=partial(_run, prometheus, cipher, near),
        footer=lambda result: notes(result["notes"]),
        read_only=True,
        source="Prometheus",
        rows="metrics",
        columns=("name", "type", "unit", "help"),
        revealed_by={"__name__": ("name",)},
    )


async def _run(
    prometheus: Prometheus,
    cipher: CursorCipher,
    near: NearNames,
    arguments: ListMetricsArguments,
    context: ToolContext,
) -> ListMetricsResult:
    listed = fingerprint_of(arguments)
    after = None
    if arguments.cursor is not None:
        after = _AfterName.decode(cipher, arguments.cursor, listed).name
    known, metadata = await gather_or_cancel(prometheus.metric_names(), prometheus.metadata())
    part = (arguments.contains or "").lower()
    names = [name for name in known if part in name.lower()]
    rest = names if after is None else [name for name in names if bounded_key(name) > after]
    page = rest[: context.at_most(arguments.limit)]
    more = len(page) < len(rest)

    def cursor_after(rows: int) -> str:
        return _AfterName(query=listed, name=bounded_key(page[rows - 1])).encode(cipher)

    similar = [] if names else await near.for_caller(part, known, context)
    return ListMetricsResult(
        metrics=[_metric(name, metadata) for name in page],
        total=len(names),
        truncated=more,
        next_cursor=cursor_after(len(page)) if more and page else None,
        notes=(f"near: {', '.join(similar)}",) if similar else (),
    ).with_cursor(cursor_after)


def _metric(name: str, metadata: Mapping[str, Metadata]) -> MetricRow:
    known = metadata.get(name)
    for suffix in _FAMILY_SUFFIXES:
        if known is None and name.endswith(suffix):
            # Series of a histogram, or of an OpenMetrics counter, share one description.
            known = metadata.get(name.removesuffix(suffix))
    if known is None:
        return MetricRow(name=name, type="", unit="", help="")
    kind = "" if known.type == "unknown" else known.type
    return MetricRow(name=name, type=kind, unit=known.unit, help=known.help)
