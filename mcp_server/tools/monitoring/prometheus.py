"""Client of the HTTP API (v1) of Prometheus."""

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
# Maximum size of the response to a query: about 250,000 points.
_MAX_QUERY_BYTES = 8 * 1024 * 1024
# Shares of the deadline: the evaluation timeout of Prometheus, which reports a reason; the start of the
# probe, a cheap request; the end of a query that Prometheus did not end.
_EVALUATION, _PROBE, _GIVEN_UP = 0.8, 0.5, 0.9
# Every Prometheus answers this request at once, without reading series.
_CHEAP = "/api/v1/status/buildinfo"
_NARROW = (
    "Ask for a shorter range or fewer series: more label matchers, shorter [durations], sum by (…), "
    "topk(20, …), or what a recording rule has computed"
)
_KINDS_OF_VECTOR = ("vector", "matrix")

_T = TypeVar("_T")


class QueryRefused(ToolError):
    """Prometheus refused the query; the caller can correct it."""

    _heading = "Prometheus refused the query"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self._heading}: {reason}")
        self.reason = reason


class QueryTooExpensive(QueryRefused):
    """The query is too expensive; Prometheus itself is available."""

    _heading = "the query asks too much of Prometheus"

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}. {_NARROW}")


class ResultTooLarge(QueryTooExpensive):
    """The response of Prometheus is larger than this client reads."""

    def __init__(self) -> None:
        super().__init__(f"its answer has more than {_MAX_QUERY_BYTES // 2**20} MiB")


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """One series of a response.

    Attributes:
        points: times (Unix seconds) and values, sorted by time; values may be NaN or infinite.
        histograms: number of points that are native histograms, which have no single value.
    """

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]
    histograms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of a query.

    Attributes:
        kind: vector, matrix, scalar or string.
        notes: warnings and infos of Prometheus about the query.
    """

    kind: str
    series: tuple[TimeSeries, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrometheusAlert:
    """An alert of a Prometheus rule; `state` is pending or firing."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: str
    active_since: datetime


@dataclass(frozen=True, slots=True)
class Metadata:
    """Description of a metric by its exporters; unknown fields are empty."""

    type: str
    unit: str
    help: str


class Prometheus:
    """A client of one Prometheus server; every method can raise BackendUnavailable."""

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
            QueryRefused: the query is invalid, or its evaluation failed.
            ResultTooLarge: the result has too many series.
        """
        params = {"query": query} | ({} if at is None else {"time": f"{at:.3f}"})
        return await self._evaluate("/api/v1/query", params)

    async def query_range(self, query: str, when: Evaluation) -> Answer:
        """Evaluate PromQL at every step of a range.

        Raises:
            QueryRefused: the query is invalid, or its evaluation failed.
            ResultTooLarge: the result has too many series or points.
        """
        params = {
            "query": query,
            "start": f"{when.start:.3f}",
            "end": f"{when.end:.3f}",
            "step": f"{when.step_s:g}",
        }
        return await self._evaluate("/api/v1/query_range", params)

    async def alerts(self) -> list[PrometheusAlert]:
        """Return the pending and firing alerts."""
        body = await self._ask("/api/v1/alerts", {})
        with parsing("Prometheus"):
            alerts = body["data"]["alerts"]
            return await offload(len(alerts), _alerts, alerts)

    async def metric_names(self) -> Sequence[str]:
        """Return the sorted names of all metrics; cached for 60 seconds."""
        return await self._in_time(self._names)

    async def metadata(self) -> Mapping[str, Metadata]:
        """Return the metadata of each metric family; cached for 60 seconds."""
        return await self._in_time(self._metadata)

    async def _in_time(self, kept: _Kept[_T]) -> _T:
        # Another caller with a later deadline may have started the read.
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
        # Without `timeout`, Prometheus continues to evaluate after the client has disconnected.
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
    """Return the body of a successful response.

    Raises:
        QueryRefused: the query is invalid.
        BackendUnavailable: Prometheus cannot answer.
    """
    if isinstance(body, dict) and body.get("status") == "success":
        return body
    raise _of_one_request(body) or BackendUnavailable("Prometheus", f"it answered HTTP {status}")


def _of_one_request(body: Any) -> ToolError | None:
    """Return the error of one request; None if the body reports none, or an outage.

    A Prometheus that sends its own error object is running, whatever the HTTP status is: a query that
    timed out also gets 503. Only `unavailable` means that it can evaluate no query.
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
    """A value that is cached for 60 seconds; concurrent callers share one read.

    A read continues after its callers have given up, so that the next caller gets its result.
    """

    def __init__(self, read: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        self._read = read
        self._reading: asyncio.Task[_T] | None = None
        self._value: tuple[float, _T] | None = None

    async def get(self) -> _T:
        if self._value is not None and time.monotonic() - self._value[0] <= _KEPT_S:
            return self._value[1]
        if self._reading is None:
            # A new context: the deadline of the first caller does not apply to the others.
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
    """Return the approximate number of points: the series of a result have about as many each."""
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
    # An instant query has `value` or `histogram`. A range query has lists of them, and both lists for a
    # series whose type changed within the range.
    points = found.get("values") or ([found["value"]] if "value" in found else [])
    histograms = found.get("histograms") or ([found["histogram"]] if "histogram" in found else [])
    return TimeSeries(
        labels=found["metric"],
        points=tuple((float(when), float(value)) for when, value in points),
        histograms=len(histograms),
    )
