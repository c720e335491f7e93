"""The tools that look at metrics: `query_metrics` and `list_metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_server.tools.catalog import (
    InvalidArguments,
    ListArguments,
    ListResult,
    Result,
    Tool,
    ToolContext,
    ToolError,
)
from mcp_server.tools.cursor import LONGEST_KEY, Cursor, CursorCipher, bounded_key, fingerprint_of
from mcp_server.tools.gather import gather_or_cancel
from mcp_server.tools.monitoring.names import NearNames, names_in
from mcp_server.tools.monitoring.prometheus import (
    Answer,
    Metadata,
    Prometheus,
    QueryRefused,
    QueryTooExpensive,
    ResultTooLarge,
    TimeSeries,
)
from mcp_server.tools.monitoring.timerange import (
    MAX_POINTS,
    Window,
    evaluation,
    instant,
    window,
)
from mcp_server.tools.offload import offload
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES
from mcp_server.tools.text import notes, table

__all__ = ["Metrics"]

# What one range query may fetch: about 7 MB of JSON.
_MAX_FETCHED_POINTS = 250_000
# No answer holds more: each takes ten bytes at least.
_MOST_POINTS_SHOWN = RESULT_BUDGET_BYTES // 10
# A hint is worth no longer wait; the near names of three unknown ones take less, unless others search.
_HINT_S = 1.0
# At so many times of a range the series are counted before.
_COUNTED_AT = 25
# A cursor says when its list was asked for; that must not open times which the arguments do not name.
_CURSOR_AGE_S = 3600
_CLOCKS_DIFFER_S = 60
# Above it, a float does not hold every whole number.
_LARGEST_IN_FULL = 1e15
_FAMILY_SUFFIXES = ("_bucket", "_count", "_sum", "_total", "_created")


class QueryMetricsArguments(ListArguments):
    """Arguments of `query_metrics`."""

    query: Annotated[str, Field(max_length=4096, description="PromQL")]
    time_range: Annotated[
        str | None, Field(max_length=16, description="Back from now: 2h, 7d; default 5m")
    ] = None
    start: Annotated[str | None, Field(max_length=40, description="RFC 3339 or Unix seconds")] = (
        None
    )
    end: Annotated[str | None, Field(max_length=40, description="As start; default now")] = None
    instant: Annotated[bool, Field(description="Evaluate once, at end")] = False
    samples: Annotated[bool, Field(description="Also return the points")] = False


class _Place(Cursor):
    """Where in the answer of a query to go on.

    Attributes:
        end: when the first page was asked for (Unix seconds): what "now" means on all pages.
        after: how many series were shown.
    """

    end: Annotated[float, Field(ge=0, lt=2**40, allow_inf_nan=False)]
    after: Annotated[int, Field(ge=0, lt=2**31)]


# JSON has no numbers for these (RFC 8259, section 6): they are spelled as Prometheus does.
Number = float | Literal["+Inf", "-Inf", "NaN"]


class Series(Result):
    """One time series; `min`, `max` and `avg` pass over NaN where there are other values."""

    labels: dict[str, str]
    value: Number | None
    """The latest value; None where it is a native histogram."""
    points: int
    """How many points the range holds."""
    min: Number | None
    max: Number | None
    avg: Number | None
    samples: list[list[Number]] | None = None
    """Unix seconds and value of each point, where asked for."""


class QueryMetricsResult(ListResult):
    """Series, the largest latest value first."""

    series: list[Series]
    step_s: float | None
    """Seconds between points; None for an instant query."""
    notes: tuple[str, ...]
    """Prometheus' warnings and infos, and why nothing may have been found."""


class ListMetricsArguments(ListArguments):
    """Arguments of `list_metrics`."""

    contains: Annotated[
        str | None, Field(max_length=256, description="Part of the name, ignoring case")
    ] = None


class _AfterName(Cursor):
    """The last name that was shown."""

    name: Annotated[str, Field(max_length=LONGEST_KEY)]


class MetricRow(Result):
    """One metric; what its exporter does not say is empty."""

    name: str
    type: str
    unit: str
    help: str


class ListMetricsResult(ListResult):
    """Metrics in the order of their names."""

    metrics: list[MetricRow]
    notes: tuple[str, ...]
    """Near names where none matches."""


class Metrics:
    """The tools about metrics, over one Prometheus."""

    def __init__(self, prometheus: Prometheus, cipher: CursorCipher | None = None) -> None:
        self._prometheus = prometheus
        self._cipher = cipher or CursorCipher()
        self._near = NearNames()

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declarations."""
        return [
            Tool(
                name="monitoring:query_metrics",
                title="Query metrics",
                description="Run PromQL over a time range or at one time; the largest series first.",
                permission="metrics:query",
                arguments=QueryMetricsArguments,
                result=QueryMetricsResult,
                run=self._query_metrics,
                render=_render_series,
                footer=lambda result: notes(result["notes"]),
                read_only=True,
                source="Prometheus",
                rows="series",
                columns=("labels", "value", "points", "min", "max", "avg"),
                revealed_by={"value": ("min", "max", "avg", "samples"), "name": ("__name__",)},
                # Up to three questions, each with the deadline of Prometheus.
                timeout_s=30.0,
            ),
            Tool(
                name="monitoring:list_metrics",
                title="List metrics",
                description="List metrics with type, unit and help.",
                permission="metrics:query",
                arguments=ListMetricsArguments,
                result=ListMetricsResult,
                run=self._list_metrics,
                footer=lambda result: notes(result["notes"]),
                read_only=True,
                source="Prometheus",
                rows="metrics",
                columns=("name", "type", "unit", "help"),
                revealed_by={"__name__": ("name",)},
            ),
        ]

    async def _query_metrics(
        self, arguments: QueryMetricsArguments, context: ToolContext
    ) -> QueryMetricsResult:
        listed = fingerprint_of(arguments)
        # A further page is one of the same evaluation, so that no series is missed or seen twice.
        now, first = time.time(), 0
        if arguments.cursor is not None:
            place = _Place.decode(self._cipher, arguments.cursor, listed)
            if not now - _CURSOR_AGE_S <= place.end <= now + _CLOCKS_DIFFER_S:
                raise InvalidArguments(
                    "cursor: it is older than an hour; leave it out to begin again"
                )
            now, first = place.end, place.after
        asked = _asked(arguments, now=now)
        step_s: float | None = None
        if arguments.instant:
            answer = await self._prometheus.query(arguments.query, at=asked.end)
        else:
            step_s, answer = await self._range(arguments.query, asked)
        found = answer.series
        most = context.at_most(arguments.limit)
        page = await offload(
            sum(1 + len(each.points) // 20 for each in found),
            _rows,
            found,
            slice(first, first + most),
            samples=arguments.samples,
        )
        more = first + len(page) < len(found)

        def cursor_after(rows: int) -> str:
            return _Place(query=listed, end=now, after=first + rows).encode(self._cipher)

        return QueryMetricsResult(
            series=page,
            total=len(found),
            truncated=more,
            next_cursor=cursor_after(len(page)) if more and page else None,
            step_s=step_s,
            notes=(
                *_warnings(answer, found),
                *(await self._hints(arguments.query, found, context)),
            ),
        ).with_cursor(cursor_after)

    async def _range(self, query: str, asked: Window) -> tuple[float, Answer]:
        """Return the answer over a range and its step, which is longer where there are many series.

        How many points come is not known before. It is estimated from how many series there are at
        a time; where most of them live shortly, their labels make the answer larger than that. So
        its bytes are bounded too, and where they are too many it is asked for with fewer points.
        """
        share = _MAX_FETCHED_POINTS // max(await self._most_at_once(query, asked), 1)
        points = max(2, min(MAX_POINTS, share))
        when = evaluation(asked, max_points=points)
        try:
            return when.step_s, await self._prometheus.query_range(query, when)
        except ResultTooLarge:
            fewer = evaluation(asked, max_points=max(2, points // 4))
            if fewer == when:
                raise
        return fewer.step_s, await self._prometheus.query_range(query, fewer)

    async def _most_at_once(self, query: str, asked: Window) -> int:
        """Return how many series the query has at a time of the range, where it has the most."""
        # On lines of its own: it may end in a comment.
        counting = f"count(\n{query}\n)"
        try:
            counts = await self._prometheus.query_range(
                counting, evaluation(asked, max_points=_COUNTED_AT)
            )
        except QueryTooExpensive:
            raise
        except QueryRefused:
            # A scalar is one series; of what else is wrong the query itself tells better.
            return 1
        return max(
            (int(value) for series in counts.series for _, value in series.points), default=0
        )

    async def _hints(
        self, query: str, found: Sequence[TimeSeries], context: ToolContext
    ) -> list[str]:
        """Return why a query may have found nothing, and what is near, as far as that is soon known.

        The query was answered; without a hint the answer is the same.
        """
        hints: list[str] = []
        if not found:
            with contextlib.suppress(TimeoutError, ToolError):
                async with asyncio.timeout(_HINT_S):
                    await self._add_hints(query, hints, context)
        return hints

    async def _add_hints(self, query: str, hints: list[str], context: ToolContext) -> None:
        known = await self._prometheus.metric_names()
        names, there = names_in(query), frozenset(known)
        unknown = [name for name in names if name not in there]
        if not names:
            hints.append("the query names no metric; monitoring_list_metrics lists them")
        elif not unknown:
            hints.append("no series has these labels in this range, or a comparison left none")
        for name in unknown[:3]:
            near = await self._near_of(name, known, context)
            hints.append(
                f"no metric is called {name}" + (f"; near: {', '.join(near)}" if near else "")
            )

    async def _near_of(self, name: str, known: Sequence[str], context: ToolContext) -> list[str]:
        """Return names of metrics that are near; none where the policy masks such names."""
        if not context.masked.isdisjoint(("name", "__name__")):
            return []
        return await self._near.of(name, known)

    async def _list_metrics(
        self, arguments: ListMetricsArguments, context: ToolContext
    ) -> ListMetricsResult:
        listed = fingerprint_of(arguments)
        after = None
        if arguments.cursor is not None:
            after = _AfterName.decode(self._cipher, arguments.cursor, listed).name
        known, metadata = await gather_or_cancel(
            self._prometheus.metric_names(), self._prometheus.metadata()
        )
        part = (arguments.contains or "").lower()
        names = [name for name in known if part in name.lower()]
        rest = names if after is None else [name for name in names if bounded_key(name) > after]
        page = rest[: context.at_most(arguments.limit)]
        more = len(page) < len(rest)

        def cursor_after(rows: int) -> str:
            return _AfterName(query=listed, name=bounded_key(page[rows - 1])).encode(self._cipher)

        near = [] if names else await self._near_of(part, known, context)
        return ListMetricsResult(
            metrics=[_metric(name, metadata) for name in page],
            total=len(names),
            truncated=more,
            next_cursor=cursor_after(len(page)) if more and page else None,
            notes=(f"near: {', '.join(near)}",) if near else (),
        ).with_cursor(cursor_after)


def _asked(arguments: QueryMetricsArguments, *, now: float) -> Window:
    if not arguments.instant:
        return window(arguments.time_range, arguments.start, arguments.end, now=now)
    for name in ("time_range", "start"):
        if getattr(arguments, name) is not None:
            raise InvalidArguments(f"{name}: an instant query has none; it takes only `end`")
    at = now if arguments.end is None else instant("end", arguments.end)
    return Window(at, at)


def _largest_first(series: TimeSeries) -> tuple[float, list[tuple[str, str]]]:
    value = series.points[-1][1] if series.points else math.nan
    # NaN has no place in an order: after all others.
    return (math.inf if math.isnan(value) else -value, sorted(series.labels.items()))


def _rows(found: Iterable[TimeSeries], page: slice, *, samples: bool) -> list[Series]:
    """Return the series of a page; with their points no more of them than an answer may hold."""
    rows: list[Series] = []
    points = 0
    for each in sorted(found, key=_largest_first)[page]:
        rows.append(_row(each, samples=samples))
        points += len(each.points)
        if samples and points > _MOST_POINTS_SHOWN:
            break
    return rows


def _row(series: TimeSeries, *, samples: bool) -> Series:
    values = [value for _, value in series.points]
    known = [value for value in values if not math.isnan(value)] or values
    return Series(
        labels=dict(series.labels),
        value=_number(values[-1]) if values else None,
        points=len(series.points) + series.histograms,
        min=_number(min(known)) if known else None,
        max=_number(max(known)) if known else None,
        avg=_number(_mean(known)) if known else None,
        samples=[[when, _number(value)] for when, value in series.points] if samples else None,
    )


def _mean(values: Sequence[float]) -> float:
    # Exact for finite values, and an error for both infinities together, the sum of which is NaN.
    add = math.fsum if all(map(math.isfinite, values)) else sum
    return add(value / len(values) for value in values)


def _number(value: float) -> Number:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _warnings(answer: Answer, found: Sequence[TimeSeries]) -> tuple[str, ...]:
    warnings = list(answer.notes)
    histograms = sum(1 for each in found if each.histograms)
    if histograms:
        warnings.append(
            f"{histograms} series are native histograms and have no value of their own: wrap the "
            "query in histogram_quantile, histogram_count or histogram_sum"
        )
    if answer.kind == "string":
        warnings.append("the query gives a string, not series")
    return tuple(warnings)


def _metric(name: str, metadata: Mapping[str, Metadata]) -> MetricRow:
    known = metadata.get(name)
    for suffix in _FAMILY_SUFFIXES:
        if known is None and name.endswith(suffix):
            # What belongs to a histogram, or a counter of OpenMetrics, is described once.
            known = metadata.get(name.removesuffix(suffix))
    if known is None:
        return MetricRow(name=name, type="", unit="", help="")
    kind = "" if known.type == "unknown" else known.type
    return MetricRow(name=name, type=kind, unit=known.unit, help=known.help)


def _render_series(result: Mapping[str, Any]) -> str:
    if result["series"]:
        rows = [
            {**each, **{key: _short(each[key]) for key in ("value", "min", "max", "avg")}}
            for each in result["series"]
        ]
        text = table(rows, ["labels", "value", "points", "min", "max", "avg"])
        for number, each in enumerate(result["series"], 1):
            if isinstance(each["samples"], list):
                points = " ".join(f"{when:.0f}={_short(v)}" for when, v in each["samples"])
                text += f"\npoints of row {number}: {points}"
    else:
        text = "No series matched the query."
    return text


def _short(value: Any) -> Any:
    """Return a number in full where it is whole and below 10^15, with ten digits where it is not."""
    if not isinstance(value, int | float):
        # The policy may have put a mask in the place of a number.
        return value
    whole = value == int(value) and abs(value) < _LARGEST_IN_FULL
    return str(int(value)) if whole else f"{value:.10g}"
