"""Monitoring tools, over the HTTP APIs of Prometheus and Alertmanager."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.backend import BackendUnavailable, HttpBackend
from mcp_server.tools.catalog import Arguments, Result, Tool, ToolContext, ToolError
from mcp_server.tools.text import table

__all__ = ["Monitoring"]

_RANGE = re.compile(r"([1-9][0-9]{0,4})(s|m|h|d|w)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MAX_RANGE_S = 92 * 86400
_MAX_POINTS = 500
_MIN_STEP_S = 1

Severity = Literal["critical", "warning", "info"]


class QueryMetricsArguments(Arguments):
    """Arguments of `query_metrics`."""

    query: Annotated[
        str,
        Field(
            min_length=1, max_length=4096, description="PromQL", examples=['up{job="mcp-server"}']
        ),
    ]
    time_range: Annotated[
        str,
        Field(
            pattern=r"^[1-9][0-9]{0,4}(s|m|h|d|w)$",
            description="How far back from now: a number and s, m, h, d or w; at most 92d",
        ),
    ] = "5m"
    limit: Annotated[int, Field(ge=1, le=500, description="Most series to return")] = 50


class Series(Result):
    """One time series."""

    labels: dict[str, str]
    value: float | None
    """The latest value; None where it is NaN or infinite."""
    points: int


class QueryMetricsResult(Result):
    """The series of a range query, each with its latest value."""

    series: list[Series]
    total: int
    truncated: bool


class GetAlertsArguments(Arguments):
    """Arguments of `get_alerts`."""

    severity: Annotated[Severity | None, Field(description="Only alerts of this severity")] = None
    limit: Annotated[int, Field(ge=1, le=500, description="Most alerts to return")] = 50


class Alert(Result):
    """One firing alert."""

    name: str
    severity: str | None
    instance: str | None
    summary: str | None
    active_since: datetime
    silenced: bool


class GetAlertsResult(Result):
    """Firing alerts, the longest active first."""

    alerts: list[Alert]
    total: int
    truncated: bool


class Monitoring:
    """The monitoring family: its backends and its tools."""

    def __init__(self, settings: MonitoringSettings) -> None:
        def backend(name: str, url: object) -> HttpBackend:
            return HttpBackend(name, str(url), tls=settings.tls, timeout_s=settings.timeout_s)

        self._prometheus = backend("Prometheus", settings.prometheus_url)
        self._alertmanager = backend("Alertmanager", settings.alertmanager_url)

    async def start(self) -> None:
        """Open the backends' connection pools."""
        await self._prometheus.start()
        await self._alertmanager.start()

    async def stop(self) -> None:
        """Close the backends' connections."""
        await self._prometheus.stop()
        await self._alertmanager.stop()

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declarations of this family."""
        return [
            Tool(
                name="monitoring:query_metrics",
                title="Query metrics",
                description="Run a PromQL query over a recent time range; returns each series' labels, "
                "latest value and number of points.",
                permission="metrics:query",
                arguments=QueryMetricsArguments,
                result=QueryMetricsResult,
                run=self._query_metrics,
                render=_render_series,
                read_only=True,
                source="Prometheus",
            ),
            Tool(
                name="monitoring:get_alerts",
                title="Get alerts",
                description="List the alerts that are firing now, the longest active first.",
                permission="tools:read",
                arguments=GetAlertsArguments,
                result=GetAlertsResult,
                run=self._get_alerts,
                render=_render_alerts,
                read_only=True,
                source="Prometheus",
            ),
        ]

    async def _query_metrics(
        self, arguments: QueryMetricsArguments, context: ToolContext
    ) -> QueryMetricsResult:
        span_s = _span_s(arguments.time_range)
        now = time.time()
        body = await self._ask_prometheus(
            "/api/v1/query_range",
            {
                "query": arguments.query,
                "start": f"{now - span_s:.3f}",
                "end": f"{now:.3f}",
                "step": str(max(math.ceil(span_s / _MAX_POINTS), _MIN_STEP_S)),
            },
        )
        found = body["result"]
        most = context.at_most(arguments.limit)
        return QueryMetricsResult(
            series=[
                Series(
                    labels=series["metric"],
                    value=_finite(series["values"][-1][1]),
                    points=len(series["values"]),
                )
                for series in found[:most]
            ],
            total=len(found),
            truncated=len(found) > most,
        )

    async def _get_alerts(
        self, arguments: GetAlertsArguments, context: ToolContext
    ) -> GetAlertsResult:
        fired, silenced = await asyncio.gather(
            self._ask_prometheus("/api/v1/alerts", {}), self._silenced()
        )
        alerts = [
            Alert(
                name=alert["labels"]["alertname"],
                severity=alert["labels"].get("severity"),
                instance=alert["labels"].get("instance"),
                summary=alert["annotations"].get("summary"),
                active_since=alert["activeAt"],
                silenced=any(alert["labels"].items() <= labels.items() for labels in silenced),
            )
            for alert in fired["alerts"]
            if alert["state"] == "firing"
            and arguments.severity in (None, alert["labels"].get("severity"))
        ]
        alerts.sort(key=lambda alert: (alert.active_since, alert.name, alert.instance or ""))
        most = context.at_most(arguments.limit)
        return GetAlertsResult(
            alerts=alerts[:most], total=len(alerts), truncated=len(alerts) > most
        )

    async def _silenced(self) -> list[dict[str, str]]:
        """Return the labels of the alerts that Alertmanager keeps quiet.

        They may hold more labels than Prometheus shows: external labels are added on the way.
        """
        status, body = await self._alertmanager.get(
            "/api/v2/alerts",
            {"active": "false", "silenced": "true", "inhibited": "true", "unprocessed": "false"},
        )
        if status != 200 or not isinstance(body, list):
            raise BackendUnavailable("Alertmanager", f"it answered HTTP {status}")
        return [alert["labels"] for alert in body]

    async def _ask_prometheus(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        status, body = await self._prometheus.get(path, params)
        if isinstance(body, dict) and body.get("status") == "success":
            data: dict[str, Any] = body["data"]
            return data
        if isinstance(body, dict) and body.get("errorType") in ("bad_data", "execution"):
            # Prometheus says what is wrong with the query and where; the caller can mend it.
            raise ToolError(f"Prometheus refused the query: {body.get('error')}")
        raise BackendUnavailable("Prometheus", f"it answered HTTP {status}")


def _span_s(time_range: str) -> int:
    match = _RANGE.fullmatch(time_range)
    if match is None:
        raise ToolError(f"time_range {time_range!r} is not a number and s, m, h, d or w")
    span_s = int(match[1]) * _UNIT_S[match[2]]
    if span_s > _MAX_RANGE_S:
        raise ToolError(f"time_range {time_range} is more than 92d")
    return span_s


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _render_series(result: Mapping[str, Any]) -> str:
    if not result["series"]:
        return "No series matched the query."
    rows = [{"series": s["labels"], **s} for s in result["series"]]
    return table(rows, ["series", "value", "points"]) + _tail(result, "series")


def _render_alerts(result: Mapping[str, Any]) -> str:
    if not result["alerts"]:
        return "No alerts are firing."
    columns = ["name", "severity", "instance", "active_since", "silenced", "summary"]
    return table(result["alerts"], columns) + _tail(result, "alerts")


def _tail(result: Mapping[str, Any], what: str) -> str:
    if not result["truncated"]:
        return ""
    return f"\n({len(result[what])} of {result['total']} {what}; narrow the query or raise limit)"
