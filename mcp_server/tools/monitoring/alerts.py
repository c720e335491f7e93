"""The tool that looks at alerts: `get_alerts`.

Prometheus knows what is pending or firing, Alertmanager what of it is silenced or inhibited, and
alerts that others sent it. An alert of Prometheus is the one of Alertmanager that has all of its
labels: external labels may have been added on the way. Where none has, it is one of the same name
that differs in no label that both have: `alert_relabel_configs` may have dropped the others. Only
where relabeling changes a value does an alert stand twice, as Prometheus and as Alertmanager has it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_server.tools.catalog import (
    ListArguments,
    ListResult,
    Result,
    Tool,
    ToolContext,
    ToolError,
)
from mcp_server.tools.cursor import LONGEST_KEY, Cursor, bounded, fingerprint_of
from mcp_server.tools.monitoring.alertmanager import Alertmanager, KnownAlert, MatchersRefused
from mcp_server.tools.monitoring.matchers import MOST_MATCHERS, matchers_of
from mcp_server.tools.monitoring.prometheus import Prometheus, PrometheusAlert
from mcp_server.tools.schemas import plain
from mcp_server.tools.text import table

__all__ = ["Alert", "Alerts"]

Severity = Literal["critical", "warning", "info"]
State = Literal["firing", "pending", "silenced", "inhibited"]

_MOST_GROUPS = 50


class GetAlertsArguments(ListArguments):
    """Arguments of `get_alerts`."""

    severity: Annotated[Severity | None, plain("Only alerts of this severity")] = None
    state: Annotated[State | None, Field(description="Default: all but pending")] = None
    matchers: Annotated[
        list[str] | None, Field(max_length=MOST_MATCHERS, description='job="x"; also != =~ !~')
    ] = None
    group_by: Annotated[
        str | None, Field(max_length=256, description="Also count by this label")
    ] = None


class _After(Cursor):
    """The last alert that was shown.

    Attributes:
        since: how long it is active, RFC 3339 in UTC with microseconds, so that texts sort as times.
    """

    since: Annotated[str, Field(max_length=40)]
    name: Annotated[str, Field(max_length=LONGEST_KEY)]
    labels: Annotated[str, Field(max_length=LONGEST_KEY)]


class Alert(Result):
    """One alert; a label or annotation that it does not have is empty, as in Prometheus."""

    name: str
    severity: str
    instance: str
    summary: str
    active_since: datetime
    state: str
    """Silenced or inhibited where Alertmanager keeps it quiet; else what Prometheus says."""
    labels: dict[str, str]


class GetAlertsResult(ListResult):
    """Alerts, the longest active first."""

    alerts: list[Alert]
    groups: dict[str, int] | None
    """How many alerts have each value of the label of `group_by`, on all pages, the most first."""
    notes: tuple[str, ...]
    """What is not known or was left out."""


class Alerts:
    """The tool about alerts, over Prometheus and Alertmanager."""

    def __init__(self, prometheus: Prometheus, alertmanager: Alertmanager) -> None:
        self._prometheus = prometheus
        self._alertmanager = alertmanager

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declaration."""
        return [
            Tool(
                name="monitoring:get_alerts",
                title="Get alerts",
                description="List alerts, the longest active first.",
                permission="tools:read",
                arguments=GetAlertsArguments,
                result=GetAlertsResult,
                run=self._get_alerts,
                read_only=True,
                source="Prometheus and Alertmanager",
                rows="alerts",
                columns=("name", "severity", "instance", "state", "active_since", "summary"),
                below=_counts_and_notes,
            )
        ]

    async def _get_alerts(
        self, arguments: GetAlertsArguments, context: ToolContext
    ) -> GetAlertsResult:
        listed = fingerprint_of(arguments)
        after = None if arguments.cursor is None else _After.decode(arguments.cursor, listed)
        matchers = matchers_of(arguments.matchers) if arguments.matchers else []
        alerts, silence = await self.current(matchers)
        if silence is not None and arguments.state in ("silenced", "inhibited"):
            raise silence
        notes = []
        if silence is not None:
            # What fires is known all the same, and is what matters in an outage; what is quiet is not.
            notes.append(
                f"{silence}. Whether an alert is silenced or inhibited is not known, and alerts that "
                "Alertmanager got from others are missing."
            )
        found = [
            alert
            for alert in alerts
            if arguments.severity in (None, alert.severity)
            and (alert.state == arguments.state if arguments.state else alert.state != "pending")
        ]
        found.sort(key=_key)
        rest = found
        if after is not None:
            last = (after.since, after.name, after.labels)
            rest = [alert for alert in found if _key(alert) > last]
        page = rest[: context.at_most(arguments.limit)]
        more = len(page) < len(rest)

        def cursor_after(rows: int) -> str:
            since, name, labels = _key(page[rows - 1])
            return _After(query=listed, since=since, name=name, labels=labels).encode()

        groups = None
        if arguments.group_by is not None:
            counted = Counter(alert.labels.get(arguments.group_by, "") for alert in found)
            groups = dict(counted.most_common(_MOST_GROUPS))
            if len(counted) > len(groups):
                notes.append(
                    f"{len(groups)} of {len(counted)} values of {arguments.group_by} are counted"
                )
        return GetAlertsResult(
            alerts=page,
            total=len(found),
            truncated=more,
            next_cursor=cursor_after(len(page)) if more and page else None,
            groups=groups,
            notes=tuple(notes),
        ).with_cursor(cursor_after)

    async def current(self, matchers: list[str]) -> tuple[list[Alert], ToolError | None]:
        """Return the alerts that fit all matchers, and why Alertmanager was not heard, if so.

        Raises:
            ToolError: a matcher is not valid, or Prometheus does not tell its alerts.
        """
        raised, (known, silence) = await asyncio.gather(
            self._raised(matchers), self._known(matchers)
        )
        return list(_joined(raised, known)), silence

    async def _raised(self, matchers: list[str]) -> list[PrometheusAlert]:
        """Return what Prometheus raised and fits the matchers.

        Its list of alerts takes no matchers, but each alert is also a series: so Prometheus itself
        judges them, regular expressions included.
        """
        if not matchers:
            return await self._prometheus.alerts()
        alerts, answer = await asyncio.gather(
            self._prometheus.alerts(),
            self._prometheus.query(f"ALERTS{{{', '.join(matchers)}}}"),
        )
        fitting = {
            frozenset(
                (name, value)
                for name, value in series.labels.items()
                if name not in ("__name__", "alertstate")
            )
            for series in answer.series
        }
        return [alert for alert in alerts if frozenset(alert.labels.items()) in fitting]

    async def _known(self, matchers: list[str]) -> tuple[_Known | None, ToolError | None]:
        """Return what Alertmanager has, or why that is not known.

        Raises:
            MatchersRefused: a matcher is not valid.
        """
        try:
            everything = await self._alertmanager.alerts()
            fitting = await self._alertmanager.alerts(matchers) if matchers else everything
        except MatchersRefused:
            raise
        except ToolError as error:
            return None, error
        return _Known(everything, fitting), None


@dataclass(frozen=True, slots=True)
class _Known:
    """What Alertmanager has: all, and what of it fits the matchers."""

    everything: list[KnownAlert]
    fitting: list[KnownAlert]


def _joined(raised: Iterable[PrometheusAlert], known: _Known | None) -> Iterable[Alert]:
    by_name: dict[str, list[KnownAlert]] = defaultdict(list)
    for each in known.everything if known else ():
        by_name[each.labels.get("alertname", "")].append(each)
    ours: set[frozenset[tuple[str, str]]] = set()
    for alert in raised:
        namesakes = by_name[alert.labels.get("alertname", "")]
        same = [each for each in namesakes if alert.labels.items() <= each.labels.items()]
        if not same and alert.state == "firing":
            same = [each for each in namesakes if _agree(alert.labels, each.labels)]
        ours.update(frozenset(each.labels.items()) for each in same)
        yield _alert(alert, alert.state, same)
    for each in known.fitting if known else ():
        if frozenset(each.labels.items()) not in ours:
            yield _alert(each, "firing", [each])


def _agree(labels: Mapping[str, str], others: Mapping[str, str]) -> bool:
    return all(labels[name] == others[name] for name in labels.keys() & others.keys())


def _alert(alert: PrometheusAlert | KnownAlert, state: str, known: list[KnownAlert]) -> Alert:
    # A pair of Prometheus servers may have sent it twice: it is quiet when no copy is heard.
    quiet = bool(known) and all(each.silenced or each.inhibited for each in known)
    if quiet and state == "firing":
        state = "silenced" if any(each.silenced for each in known) else "inhibited"
    return Alert.model_validate(
        {
            "name": alert.labels.get("alertname", ""),
            "severity": alert.labels.get("severity", ""),
            "instance": alert.labels.get("instance", ""),
            "summary": alert.annotations.get("summary", ""),
            "active_since": alert.active_since,
            "state": state,
            "labels": dict(alert.labels),
        }
    )


def _key(alert: Alert) -> tuple[str, str, str]:
    since = alert.active_since.astimezone(UTC).isoformat(timespec="microseconds")
    return since, bounded(alert.name), bounded(str(sorted(alert.labels.items())))


def _counts_and_notes(result: Mapping[str, Any]) -> list[str]:
    lines = []
    if result["groups"] is not None:
        counts = [
            {"value": value or "(none)", "alerts": n} for value, n in result["groups"].items()
        ]
        lines.append(table(counts, ["value", "alerts"]))
    return [*lines, *(f"note: {each}" for each in result["notes"])]
