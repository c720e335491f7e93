"""The tool `monitoring:query_metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
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
from mcp_server.tools.cursor import Cursor, CursorCipher, fingerprint_of
from mcp_server.tools.monitoring.names import NearNames, names_in
from mcp_server.tools.monitoring.prometheus import (
    Answer,
    Prometheus,
    QueryRefused,
    QueryTooExpensive,
    ResultTooLarge,
    TimeSeries,
)
from mcp_server.tools.monitoring.timerange import MAX_POINTS, Window, evaluation, instant, window_of
from mcp_server.tools.offload import offload
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES
from mcp_server.tools.text import notes, table

__all__ = ["QueryMetricsArguments", "query_metrics"]

# Points that one range query may fetch: about 7 MB of JSON.
_MAX_FETCHED_POINTS = 250_000
# A point takes at least ten bytes.
_MAX_RETURNED_POINTS = RESULT_BUDGET_BYTES // 10
# The search for names similar to three unknown metrics takes less, unless other searches run.
_HINT_S = 1.0
# Number of times in the range at which the series are counted first.
_COUNTED_TIMES = 25
# A cursor contains the time of its first page, which must be near the times that the arguments allow.
_MAX_CURSOR_AGE_S = 3600
_MAX_CLOCK_SKEW_S = 60
# From here on, a float cannot represent every integer.
_MAX_EXACT_INTEGER = 1e15


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


class _Position(Cursor):
    """The end of a page.

    Attributes:
        end: time of the first page (Unix seconds), which is "now" on all pages.
        after: number of series on the pages so far.
    """

    end: Annotated[float, Field(ge=0, lt=2**40, allow_inf_nan=False)]
    after: Annotated[int, Field(ge=0, lt=2**31)]


# JSON has no numbers for these (RFC 8259, section 6): they are written as Prometheus does.
Number = float | Literal["+Inf", "-Inf", "NaN"]


class Series(Result):
    """One time series; `min`, `max` and `avg` ignore NaN unless all values are NaN."""

    labels: dict[str, str]
    value: Number | None
    """The latest value; None for a native histogram."""
    points: int
    """Number of points in the range."""
    min: Number | None
    max: Number | None
    avg: Number | None
    samples: list[list[Number]] | None = None
    """Unix seconds and value of each point, if requested."""


class QueryMetricsResult(ListResult):
    """Series, sorted by their latest value, largest first."""

    series: list[Series]
    step_s: float | None
    """Seconds between points; None for an instant query."""
    notes: tuple[str, ...]
    """Warnings and infos of Prometheus, and why the result may be empty."""


def query_metrics(
    prometheus: Prometheus, cipher: CursorCipher, near: NearNames
) -> Tool[QueryMetricsArguments, QueryMetricsResult]:
    """Return the declaration of `monitoring:query_metrics`."""
    return Tool(
        name="monitoring:query_metrics",
        title="Query metrics",
        description="Run PromQL over a time range or at one time; the largest series first.",
        permission="metrics:query",
        arguments=QueryMetricsArguments,
        result=QueryMetricsResult,
        run=partial(_run, prometheus, cipher, near),
        render=_render_series,
        footer=lambda result: notes(result["notes"]),
        read_only=True,
        source="Prometheus",
        rows="series",
        columns=("labels", "value", "points", "min", "max", "avg"),
        revealed_by={"value": ("min", "max", "avg", "samples"), "name": ("__name__",)},
        # Up to three requests, each with the deadline of Prometheus.
        timeout_s=30.0,
    )


async def _run(
    prometheus: Prometheus,
    cipher: CursorCipher,
    near: NearNames,
    arguments: QueryMetricsArguments,
    context: ToolContext,
) -> QueryMetricsResult:
    listed = fingerprint_of(arguments)
    # All pages are of one evaluation, so that no series is missing or on two pages.
    now, first = time.time(), 0
    if arguments.cursor is not None:
        position = _Position.decode(cipher, arguments.cursor, listed)
        if not now - _MAX_CURSOR_AGE_S <= position.end <= now + _MAX_CLOCK_SKEW_S:
            raise InvalidArguments("cursor: it is older than an hour; leave it out to begin again")
        now, first = position.end, position.after
    window = _window(arguments, now=now)
    step_s: float | None = None
    if arguments.instant:
        answer = await prometheus.query(arguments.query, at=window.end)
    else:
        step_s, answer = await _query_range(prometheus, arguments.query, window)
    found = answer.series
    limit = context.at_most(arguments.limit)
    page = await offload(
        sum(1 + len(each.points) // 20 for each in found),
        _rows,
        found,
        slice(first, first + limit),
        samples=arguments.samples,
    )
    more = first + len(page) < len(found)

    def cursor_after(rows: int) -> str:
        return _Position(query=listed, end=now, after=first + rows).encode(cipher)

    return QueryMetricsResult(
        series=page,
        total=len(found),
        truncated=more,
        next_cursor=cursor_after(len(page)) if more and page else None,
        step_s=step_s,
        notes=(
            *_warnings(answer, found),
            *(await _hints(prometheus, near, arguments.query, found, context)),
        ),
    ).with_cursor(cursor_after)


async def _query_range(prometheus: Prometheus, query: str, window: Window) -> tuple[float, Answer]:
    """Return the step in seconds and the answer of a range query; many series make the step longer.

    The number of points is estimated from the number of series at one time. Many short-lived series make
    the answer larger than estimated: its size is limited too, and beyond the limit the query is repeated
    with fewer points.
    """
    share = _MAX_FETCHED_POINTS // max(await _max_series(prometheus, query, window), 1)
    points = max(2, min(MAX_POINTS, share))
    when = evaluation(window, max_points=points)
    try:
        return when.step_s, await prometheus.query_range(query, when)
    except ResultTooLarge:
        fewer = evaluation(window, max_points=max(2, points // 4))
        if fewer == when:
            raise
    return fewer.step_s, await prometheus.query_range(query, fewer)


async def _max_series(prometheus: Prometheus, query: str, window: Window) -> int:
    """Return the maximum number of series at one time of the range."""
    # The query may end in a comment.
    counting = f"count(\n{query}\n)"
    try:
        counts = await prometheus.query_range(
            counting, evaluation(window, max_points=_COUNTED_TIMES)
        )
    except QueryTooExpensive:
        raise
    except QueryRefused:
        # A scalar is one series. Other errors are better explained by the query itself.
        return 1
    return max((int(value) for series in counts.series for _, value in series.points), default=0)


async def _hints(
    prometheus: Prometheus,
    near: NearNames,
    query: str,
    found: Sequence[TimeSeries],
    context: ToolContext,
) -> list[str]:
    """Return why a query may have found nothing, and similar names; nothing if that takes too long."""
    hints: list[str] = []
    if not found:
        with contextlib.suppress(TimeoutError, ToolError):
            async with asyncio.timeout(_HINT_S):
                await _add_hints(prometheus, near, query, hints, context)
    return hints


async def _add_hints(
    prometheus: Prometheus, near: NearNames, query: str, hints: list[str], context: ToolContext
) -> None:
    known = await prometheus.metric_names()
    names, there = names_in(query), frozenset(known)
    unknown = [name for name in names if name not in there]
    if not names:
        hints.append("the query names no metric; monitoring_list_metrics lists them")
    elif not unknown:
        hints.append("no series has these labels in this range, or a comparison left none")
    for name in unknown[:3]:
        similar = await near.for_caller(name, known, context)
        hints.append(
            f"no metric is called {name}" + (f"; near: {', '.join(similar)}" if similar else "")
        )


def _window(arguments: QueryMetricsArguments, *, now: float) -> Window:
    if not arguments.instant:
        return window_of(arguments.time_range, arguments.start, arguments.end, now=now)
    for name in ("time_range", "start"):
        if getattr(arguments, name) is not None:
            raise InvalidArguments(f"{name}: an instant query takes only `end`")
    at = now if arguments.end is None else instant("end", arguments.end)
    return Window(at, at)


def _largest_first(series: TimeSeries) -> tuple[float, list[tuple[str, str]]]:
    value = series.points[-1][1] if series.points else math.nan
    # NaN sorts last.
    return (math.inf if math.isnan(value) else -value, sorted(series.labels.items()))


def _rows(found: Iterable[TimeSeries], page: slice, *, samples: bool) -> list[Series]:
    """Return the series of a page; with `samples`, no more points than a response can hold."""
    rows: list[Series] = []
    points = 0
    for each in sorted(found, key=_largest_first)[page]:
        rows.append(_row(each, samples=samples))
        points += len(each.points)
        if samples and points > _MAX_RETURNED_POINTS:
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
    # fsum is exact for finite values, and raises for both infinities, whose sum is NaN.
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
            f"{histograms} series are native histograms and have no single value: wrap the query "
            "in histogram_quantile, histogram_count or histogram_sum"
        )
    if answer.kind == "string":
        warnings.append("the query gives a string, not series")
    return tuple(warnings)


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
    # The policy may have replaced the number with a mask.
    if not isinstance(value, int | float):
        # The policy may have put a mask in the place of a number.
        return value
    whole = value == int(value) and abs(value) < _MAX_EXACT_INTEGER
    return str(int(value)) if whole else f"{value:.10g}"
