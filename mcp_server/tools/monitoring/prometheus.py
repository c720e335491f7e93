"""Prometheus, as its HTTP API (v1) shows it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.backend import BackendUnavailable, HttpBackend
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.cursor import bounded
from mcp_server.tools.monitoring.timerange import Evaluation

__all__ = [
    "Answer",
    "Metadata",
    "Prometheus",
    "PrometheusAlert",
    "QueryRefused",
    "TimeSeries",
    "finite",
]

_NAMES_KEPT_S = 60.0
_KINDS_OF_VECTOR = ("vector", "matrix")

_T = TypeVar("_T")


class QueryRefused(ToolError):
    """Prometheus says what is wrong with the query, and where; the caller can mend it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Prometheus refused the query: {reason}")
        self.reason = reason


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
        self._http = HttpBackend(
            "Prometheus",
            str(settings.prometheus_url),
            tls=settings.tls,
            timeout_s=settings.timeout_s,
        )
        self._names = _Kept(self._read_names)
        self._metadata = _Kept(self._read_metadata)

    async def start(self) -> None:
        """Open the connection pool."""
        await self._http.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._http.stop()

    async def query(self, query: str, *, at: float | None = None) -> Answer:
        """Evaluate PromQL at one time (Unix seconds; None: now).

        Raises:
            QueryRefused: it is not valid, or cannot be evaluated.
        """
        params = {"query": query} | ({} if at is None else {"time": f"{at:.3f}"})
        return _answer(await self._ask("/api/v1/query", params))

    async def query_range(self, query: str, when: Evaluation) -> Answer:
        """Evaluate PromQL at every step of a range.

        Raises:
            QueryRefused: it is not valid, or cannot be evaluated.
        """
        params = {
            "query": query,
            "start": f"{when.start:.3f}",
            "end": f"{when.end:.3f}",
            "step": f"{when.step_s:g}",
        }
        return _answer(await self._ask("/api/v1/query_range", params))

    async def alerts(self) -> list[PrometheusAlert]:
        """Return the alerts that are pending or firing."""
        body = await self._ask("/api/v1/alerts", {})
        return [
            PrometheusAlert(
                labels=alert["labels"],
                annotations=alert["annotations"],
                state=alert["state"],
                active_since=datetime.fromisoformat(alert["activeAt"]),
            )
            for alert in body["data"]["alerts"]
            if alert["state"] in ("pending", "firing")
        ]

    async def metric_names(self) -> Sequence[str]:
        """Return the names of all metrics in order; kept for a minute."""
        return await self._names.get()

    async def metadata(self) -> Mapping[str, Metadata]:
        """Return what is known of each family of metrics; kept for a minute."""
        return await self._metadata.get()

    async def _read_names(self) -> Sequence[str]:
        body = await self._ask("/api/v1/label/__name__/values", {})
        return tuple(sorted(body["data"], key=bounded))

    async def _read_metadata(self) -> Mapping[str, Metadata]:
        # Exporters may disagree about one name; the first is shown, as in Prometheus' own pages.
        body = await self._ask("/api/v1/metadata", {"limit_per_metric": "1"})
        return {
            name: Metadata(type=said[0]["type"], unit=said[0]["unit"], help=said[0]["help"])
            for name, said in body["data"].items()
            if said
        }

    async def _ask(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        status, body = await self._http.get(path, params)
        if isinstance(body, dict):
            if body.get("status") == "success":
                return body
            if body.get("errorType") in ("bad_data", "execution"):
                raise QueryRefused(str(body.get("error")))
        raise BackendUnavailable("Prometheus", f"it answered HTTP {status}")


class _Kept(Generic[_T]):
    """A value that is read again when it is older than a minute; callers at once share one read."""

    def __init__(self, read: Callable[[], Awaitable[_T]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._value: tuple[float, _T] | None = None

    async def get(self) -> _T:
        async with self._lock:
            now = time.monotonic()
            if self._value is None or now - self._value[0] > _NAMES_KEPT_S:
                self._value = (now, await self._read())
            return self._value[1]


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


def finite(value: float) -> float | None:
    """Return a value as JSON can hold it: None for NaN and the infinities."""
    return value if math.isfinite(value) else None
