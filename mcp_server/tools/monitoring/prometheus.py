"""Prometheus, as its HTTP API (v1) shows it."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.backend import (
    BackendUnavailable,
    Probe,
    ResponseTooLarge,
    SlowResponse,
    parsing,
)
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.cursor import bounded_key
from mcp_server.tools.monitoring.access import backend_of
from mcp_server.tools.monitoring.timerange import Evaluation
from mcp_server.tools.offload import offload

__all__ = [
    "Answer",
    "Metadata",
    "Prometheus",
    "PrometheusAlert",
    "QueryRefused",
    "QueryTooExpensive",
    "ResultTooLarge",
    "TimeSeries",
]

_KEPT_S = 60.0
# Of a query's answer: about 250,000 points.
_MAX_QUERY_BYTES = 8 * 1024 * 1024
# Shares of the deadline: when Prometheus itself gives up, and says why; when something cheap is asked
# besides; when a query is given up that Prometheus did not.
_EVALUATION, _PROBE, _GIVEN_UP = 0.8, 0.5, 0.9
# Any Prometheus answers it at once, without looking at its data.
_CHEAP = "/api/v1/status/buildinfo"
_NARROW = (
    "Ask for a shorter range or fewer series: more label matchers, shorter [durations], sum by (…), "
    "topk(20, …), or what a recording rule has computed"
)
_KINDS_OF_VECTOR = ("vector", "matrix")

_T = TypeVar("_T")


class QueryRefused(ToolError):
    """A query that gives nothing, and why; the caller can mend it."""

    _heading = "Prometheus refused the query"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self._heading}: {reason}")
        self.reason = reason


class QueryTooExpensive(QueryRefused):
    """Prometheus is well, and the query asks too much of it."""

    _heading = "the query asks too much of Prometheus"

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}. {_NARROW}")


class ResultTooLarge(QueryTooExpensive):
    """Prometheus began to answer with more than is read of an answer."""

    def __init__(self) -> None:
        super().__init__(f"its answer has more than {_MAX_QUERY_BYTES // 2**20} MiB")


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """One series of an answer.

    Attributes:
        points: times (Unix seconds) and values, in the order of time; values may be NaN or infinite.
        histograms: how many points are native histograms, which have no single value.
    """

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]
    histograms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave.

    Attributes:
        kind: vector, matrix, scalar or string.
        notes: Prometheus' warnings and infos about the query.
    """

    kind: str
    series: tuple[TimeSeries, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrometheusAlert:
    """An alert that a rule of Prometheus raised; `state` is pending or firing."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: str
    active_since: datetime


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the exporters say of a metric; texts are empty where they say nothing."""

    type: str
    unit: str
    help: str


class Prometheus:
    """A client of one Prometheus server; every method raises BackendUnavailable."""

    def __init__(self, settings: MonitoringSettings) -> None:
        self._http = backend_of(
            "Prometheus",
            settings.prometheus_url,
            settings.prometheus,
            settings,
            classify_error=lambda _, body: _of_one_request(body),
        )
        self._names = _Kept(self._read_names)
        self._metadata = _Kept(self._read_metadata)

    async def start(self) -> None:
        """Open the connection pool.

        Raises:
            SettingsError: the file of the token cannot be used.
        """
        await self._http.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._names.stop()
        await self._metadata.stop()
        await self._http.stop()

    async def query(self, query: str, *, at: float | None = None) -> Answer:
        """Evaluate PromQL at one time (Unix seconds; None: now).

        Raises:
            QueryRefused: it is not valid, or cannot be evaluated.
            ResultTooLarge: there are too many series.
        """
        params = {"query": query} | ({} if at is None else {"time": f"{at:.3f}"})
        return await self._evaluate("/api/v1/query", params)

    async def query_range(self, query: str, when: Evaluation) -> Answer:
        """Evaluate PromQL at every step of a range.

        Raises:
            QueryRefused: it is not valid, or cannot be evaluated.
            ResultTooLarge: there are too many series, or too many points.
        """
        params = {
            "query": query,
            "start": f"{when.start:.3f}",
            "end": f"{when.end:.3f}",
            "step": f"{when.step_s:g}",
        }
        return await self._evaluate("/api/v1/query_range", params)

    async def alerts(self) -> list[PrometheusAlert]:
        """Return the alerts that are pending or firing."""
        body = await self._ask("/api/v1/alerts", {})
        with parsing("Prometheus"):
            alerts = body["data"]["alerts"]
            return await offload(len(alerts), _alerts, alerts)

    async def metric_names(self) -> Sequence[str]:
        """Return the names of all metrics in order; kept for a minute."""
        return await self._in_time(self._names)

    async def metadata(self) -> Mapping[str, Metadata]:
        """Return what is known of each family of metrics; kept for a minute."""
        return await self._in_time(self._metadata)

    async def _in_time(self, kept: _Kept[_T]) -> _T:
        # The read may have been begun for somebody who has more time.
        given_s = self._http.remaining_s
        try:
            async with asyncio.timeout(given_s):
                return await kept.get()
        except TimeoutError:
            raise BackendUnavailable(
                "Prometheus", f"no answer within {round(given_s, 2):g} s"
            ) from None

    async def _read_names(self) -> Sequence[str]:
        body = await self._ask("/api/v1/label/__name__/values", {})
        with parsing("Prometheus"):
            return tuple(sorted(body["data"], key=bounded_key))

    async def _read_metadata(self) -> Mapping[str, Metadata]:
        # Exporters may disagree about one name; the first is shown, as in Prometheus' own pages.
        body = await self._ask("/api/v1/metadata", {"limit_per_metric": "1"})
        with parsing("Prometheus"):
            return {
                name: Metadata(type=said[0]["type"], unit=said[0]["unit"], help=said[0]["help"])
                for name, said in body["data"].items()
                if said
            }

    async def _evaluate(self, path: str, params: Mapping[str, str]) -> Answer:
        # Prometheus works on until its own timeout, also where nobody waits any more.
        given_s = self._http.remaining_s
        asked = {**params, "timeout": f"{_EVALUATION * given_s:.3f}"}
        probe = Probe(_CHEAP, after_s=_PROBE * given_s, deadline_s=_GIVEN_UP * given_s)
        try:
            status, body = await self._http.get(
                path, asked, max_bytes=_MAX_QUERY_BYTES, probe=probe
            )
        except SlowResponse as error:
            raise QueryTooExpensive(str(error)) from error
        except ResponseTooLarge as error:
            raise ResultTooLarge from error
        document = _successful(status, body)
        with parsing("Prometheus"):
            return await offload(_points(document["data"]), _answer, document)

    async def _ask(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        return _successful(*await self._http.get(path, params))


def _successful(status: int, body: Any) -> dict[str, Any]:
    """Return the body of an answer that is one.

    Raises:
        QueryRefused: the query is at fault; BackendUnavailable: Prometheus is.
    """
    if isinstance(body, dict) and body.get("status") == "success":
        return body
    raise _of_one_request(body) or BackendUnavailable("Prometheus", f"it answered HTTP {status}")


def _of_one_request(body: Any) -> ToolError | None:
    """Return what Prometheus says of one request, or None: it says nothing, or that it cannot work.

    An error in Prometheus' own words comes from one that is there, whatever the HTTP status is: 503
    also tells of a query that took too long. Only `unavailable` tells that no query works.
    """
    if not isinstance(body, dict) or body.get("status") != "error":
        return None
    said = str(body.get("error"))
    error: ToolError | None = None
    match body.get("errorType"):
        case "timeout" if "queue" in said:
            error = ToolError(
                f"Prometheus is busy with other queries ({said}); try again in a minute",
                retryable=True,
            )
        case "timeout":
            error = QueryTooExpensive(said)
        case "execution" if "too many samples" in said:
            error = QueryTooExpensive(said)
        case "bad_data" | "execution":
            error = QueryRefused(said)
        case "canceled" | "internal":
            error = ToolError(f"Prometheus could not evaluate this: {said}", retryable=True)
    return error


class _Kept(Generic[_T]):
    """A value that is read again when it is older than a minute; callers at once share one read.

    A read goes on though its callers gave up: the next one finds what it brought.
    """

    def __init__(self, read: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        self._read = read
        self._reading: asyncio.Task[_T] | None = None
        self._value: tuple[float, _T] | None = None

    async def get(self) -> _T:
        if self._value is not None and time.monotonic() - self._value[0] <= _KEPT_S:
            return self._value[1]
        if self._reading is None:
            # In a context of its own: what its first caller has left of time is not for the others.
            self._reading = asyncio.create_task(self._read(), context=contextvars.Context())
            self._reading.add_done_callback(self._keep)
        return await asyncio.shield(self._reading)

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def _keep(self, reading: asyncio.Task[_T]) -> None:
        self._reading = None
        if not reading.cancelled() and reading.exception() is None:
            self._value = (time.monotonic(), reading.result())


def _alerts(found: Sequence[Mapping[str, Any]]) -> list[PrometheusAlert]:
    return [
        PrometheusAlert(
            labels=dict(alert["labels"]),
            annotations=dict(alert["annotations"]),
            state=alert["state"],
            active_since=datetime.fromisoformat(alert["activeAt"]),
        )
        for alert in found
        if alert["state"] in ("pending", "firing")
    ]


def _points(data: Mapping[str, Any]) -> int:
    """Return about how many points an answer has: its series have about as many each."""
    if data["resultType"] not in _KINDS_OF_VECTOR or not data["result"]:
        return 1
    return len(data["result"]) * max(1, len(data["result"][0].get("values") or ()))


def _answer(body: Mapping[str, Any]) -> Answer:
    data = body["data"]
    kind: str = data["resultType"]
    if kind in _KINDS_OF_VECTOR:
        series = tuple(_series(each) for each in data["result"])
    elif kind == "scalar":
        series = (_series({"metric": {}, "value": data["result"]}),)
    else:
        series = ()
    return Answer(
        kind=kind,
        series=series,
        notes=(*(body.get("warnings") or ()), *(body.get("infos") or ())),
    )


def _series(found: Mapping[str, Any]) -> TimeSeries:
    # An instant query has `value` or `histogram`, a range query lists of them, both in a series
    # that changed from one to the other.
    points = found.get("values") or ([found["value"]] if "value" in found else [])
    histograms = found.get("histograms") or ([found["histogram"]] if "histogram" in found else [])
    return TimeSeries(
        labels=found["metric"],
        points=tuple((float(when), float(value)) for when, value in points),
        histograms=len(histograms),
    )
