"""The tool that looks at alerts: `get_alerts`.

Prometheus knows what is pending or firing, Alertmanager what of it is silenced or inhibited, and
alerts that others sent it. An alert of Prometheus is the one of Alertmanager that has all of its
labels: external labels may have been added on the way. Where none has, it is one of the same name
that differs in no label that both have: `alert_relabel_configs` may have dropped the others. Only
where relabeling changes a value does an alert stand twice, as Prometheus and as Alertmanager has it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_server.redaction import redact_labels
from mcp_server.tools.catalog import (
    ListArguments,
    ListResult,
    Result,
    Tool,
    ToolContext,
    ToolError,
)
from mcp_server.tools.cursor import LONGEST_KEY, Cursor, CursorCipher, bounded_key, fingerprint_of
from mcp_server.tools.gather import gather_or_cancel
from mcp_server.tools.monitoring.alertmanager import Alertmanager, KnownAlert, MatchersRefused
from mcp_server.tools.monitoring.matchers import LONGEST_MATCHER, MOST_MATCHERS, matchers_of
from mcp_server.tools.monitoring.prometheus import Prometheus, PrometheusAlert, TimeSeries
from mcp_server.tools.offload import offload
from mcp_server.tools.text import notes, table

__all__ = ["Alert", "Alerts"]

Severity = Literal["critical", "warning", "info"]
State = Literal["firing", "pending", "silenced", "inhibited"]

_MOST_GROUPS = 50


class GetAlertsArguments(ListArguments):
    """Arguments of `get_alerts`."""

    severity: Annotated[Severity | None, Field(description="Only alerts of this severity")] = None
    state: Annotated[State | None, Field(description="Default: all but pending")] = None
    matchers: Annotated[
        list[Annotated[str, Field(max_length=LONGEST_MATCHER)]] | None,
        Field(max_length=MOST_MATCHERS, description='Label matchers: job="x", also != =~ !~'),
    ] = None
    group_by: Annotated[
        str | None, Field(max_length=256, description="Also count alerts by this label")
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
    """How many alerts have each value of the label of `group_by`, on all pages, the most first; all that
    are masked count as one value."""
    notes: tuple[str, ...]
    """What is not known or was left out."""


class Alerts:
    """The tool about alerts, over Prometheus and Alertmanager."""

    def __init__(
        self,
        prometheus: Prometheus,
        alertmanager: Alertmanager,
        cipher: CursorCipher | None = None,
    ) -> None:
        self._prometheus = prometheus
        self._cipher = cipher or CursorCipher()
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
                footer=_counts_and_notes,
                revealed_by={
                    "alertname": ("name",),
                    "name": ("alertname",),
                    "alerts": ("groups",),
                },
            )
        ]

    async def _get_alerts(
        self, arguments: GetAlertsArguments, context: ToolContext
    ) -> GetAlertsResult:
        listed = fingerprint_of(arguments)
        after = (
            None
            if arguments.cursor is None
            else _After.decode(self._cipher, arguments.cursor, listed)
        )
        matchers = matchers_of(arguments.matchers) if arguments.matchers else []
        alerts, silence = await self.current(matchers)
        if silence is not None and arguments.state in ("silenced", "inhibited"):
            raise silence
        told = []
        if silence is not None:
            # What fires is known all the same, and is what matters in an outage; what is quiet is not.
            told.append(
                f"{silence}. Whether an alert is silenced or inhibited is not known, and alerts that "
                "Alertmanager got from others are missing."
            )
        found, rest = await offload(len(alerts), _chosen, alerts, arguments, after)
        page = rest[: context.at_most(arguments.limit)]
        more = len(page) < len(rest)

        def cursor_after(rows: int) -> str:
            since, name, labels = _key(page[rows - 1])
            return _After(query=listed, since=since, name=name, labels=labels).encode(self._cipher)

        groups = None
        if arguments.group_by is not None:
            counted = await offload(len(found), _counted, found, arguments.group_by, context)
            groups = dict(counted.most_common(_MOST_GROUPS))
            if len(counted) > len(groups):
                told.append(
                    f"{len(groups)} of {len(counted)} values of {arguments.group_by} are counted"
                )
        return GetAlertsResult(
            alerts=page,
            total=len(found),
            truncated=more,
            next_cursor=cursor_after(len(page)) if more and page else None,
            groups=groups,
            notes=tuple(told),
        ).with_cursor(cursor_after)

    async def current(self, matchers: list[str]) -> tuple[list[Alert], ToolError | None]:
        """Return the alerts that fit all matchers, and why Alertmanager was not heard, if so.

        Raises:
            ToolError: a matcher is not valid, or Prometheus does not tell its alerts.
        """
        raised, (known, silence) = await gather_or_cancel(
            self._raised(matchers), self._known(matchers)
        )
        size = len(raised) + (len(known.everything) if known else 0)
        return await offload(size, _joined, raised, known), silence

    async def _raised(self, matchers: list[str]) -> list[PrometheusAlert]:
        """Return what Prometheus raised and fits the matchers.

        Its list of alerts takes no matchers, but each alert is also a series: so Prometheus itself
        judges them, regular expressions included.
        """
        if not matchers:
            return await self._prometheus.alerts()
        alerts, answer = await gather_or_cancel(
            self._prometheus.alerts(),
            self._prometheus.query(f"ALERTS{{{', '.join(matchers)}}}"),
        )
        return await offload(len(alerts), _among, alerts, answer.series)

    async def _known(self, matchers: list[str]) -> tuple[_Known | None, ToolError | None]:
        """Return what Alertmanager has, or why that is not known.

        Raises:
            MatchersRefused: a matcher is not valid.
        """
        try:
            everything = await self._alertmanager.alerts()
            rows_that_fit = await self._alertmanager.alerts(matchers) if matchers else everything
        except MatchersRefused:
            raise
        except ToolError as error:
            return None, error
        return _Known(everything, rows_that_fit), None


@dataclass(frozen=True, slots=True)
class _Known:
    """What Alertmanager has: all, and what of it fits the matchers."""

    everything: list[KnownAlert]
    rows_that_fit: list[KnownAlert]


def _among(
    alerts: Iterable[PrometheusAlert], series: Iterable[TimeSeries]
) -> list[PrometheusAlert]:
    """Return the alerts that are among the series `ALERTS`."""
    rows_that_fit = {
        frozenset(
            (name, value)
            for name, value in each.labels.items()
            if name not in ("__name__", "alertstate")
        )
        for each in series
    }
    return [alert for alert in alerts if frozenset(alert.labels.items()) in rows_that_fit]


def _joined(raised: Iterable[PrometheusAlert], known: _Known | None) -> list[Alert]:
    namesakes: dict[str, _Namesakes] = defaultdict(_Namesakes)
    for each in known.everything if known else ():
        namesakes[each.labels.get("alertname", "")].add(each)
    joined = [
        _alert(alert, alert.state, namesakes[alert.labels.get("alertname", "")].of(alert))
        for alert in raised
    ]
    ours = {labels for each in namesakes.values() for labels in each.found()}
    joined += [
        _alert(each, "firing", [_Copies.of(each)])
        for each in (known.rows_that_fit if known else ())
        if frozenset(each.labels.items()) not in ours
    ]
    return joined


@dataclass(slots=True)
class _Copies:
    """Alerts of Alertmanager that are one alert to Prometheus.

    Attributes:
        quiet: whether no copy is heard: a pair of Prometheus servers may have sent it twice.
        silenced: whether one is silenced.
        found: whether an alert of Prometheus is the same as they.
    """

    alerts: list[KnownAlert] = field(default_factory=list)
    quiet: bool = True
    silenced: bool = False
    found: bool = False

    @classmethod
    def of(cls, alert: KnownAlert) -> _Copies:
        copies = cls()
        copies.add(alert)
        return copies

    def add(self, alert: KnownAlert) -> None:
        self.alerts.append(alert)
        self.quiet &= alert.silenced or alert.inhibited
        self.silenced |= alert.silenced


_Names = frozenset[str]
_Labels = frozenset[tuple[str, str]]


class _Namesakes:
    """What Alertmanager has of one name, found by the values of labels.

    Alerts of one name have the same labels, with few exceptions: of sets of their names there are a
    few, of the alerts thousands.
    """

    def __init__(self) -> None:
        self._by_names: dict[_Names, list[KnownAlert]] = defaultdict(list)
        self._by_values: dict[tuple[_Names, _Names], dict[_Labels, _Copies]] = {}

    def add(self, alert: KnownAlert) -> None:
        self._by_names[frozenset(alert.labels)].append(alert)

    def of(self, alert: PrometheusAlert) -> list[_Copies]:
        """Return those that have all labels of an alert; see the module for when there are none."""
        same = self._agreeing(
            alert, [names for names in self._by_names if alert.labels.keys() <= names]
        )
        if same or alert.state != "firing":
            return same
        return self._agreeing(alert, list(self._by_names))

    def found(self) -> Iterator[_Labels]:
        """Yield the labels of those that are the same as an alert that was asked for."""
        for index in self._by_values.values():
            for copies in index.values():
                if copies.found:
                    yield from (frozenset(each.labels.items()) for each in copies.alerts)

    def _agreeing(self, alert: PrometheusAlert, sets: Iterable[_Names]) -> list[_Copies]:
        """Return those with these names of labels that differ in no label which both have."""
        same = []
        for names in sets:
            common = names.intersection(alert.labels)
            copies = self._index(names, common).get(_values(alert.labels, common))
            if copies is not None:
                copies.found = True
                same.append(copies)
        return same

    def _index(self, names: _Names, common: _Names) -> dict[_Labels, _Copies]:
        index = self._by_values.get((names, common))
        if index is None:
            index = self._by_values[names, common] = defaultdict(_Copies)
            for each in self._by_names[names]:
                index[_values(each.labels, common)].add(each)
        return index


def _values(labels: Mapping[str, str], names: _Names) -> _Labels:
    return frozenset((name, labels[name]) for name in names)


def _alert(alert: PrometheusAlert | KnownAlert, state: str, known: Sequence[_Copies]) -> Alert:
    if known and state == "firing" and all(each.quiet for each in known):
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


def _chosen(
    alerts: Iterable[Alert], arguments: GetAlertsArguments, after: _After | None
) -> tuple[list[Alert], list[Alert]]:
    """Return the alerts asked for, the longest active first, and those of them after a place."""
    found = sorted(
        (
            (_key(alert), alert)
            for alert in alerts
            if arguments.severity in (None, alert.severity)
            and (alert.state == arguments.state if arguments.state else alert.state != "pending")
        ),
        key=lambda each: each[0],
    )
    last = None if after is None else (after.since, after.name, after.labels)
    return (
        [alert for _, alert in found],
        [alert for key, alert in found if last is None or key > last],
    )


def _counted(alerts: Iterable[Alert], label: str, context: ToolContext) -> Counter[str]:
    """Return how many alerts have each value of a label, as far as the caller may see them."""

    def value(alert: Alert) -> str:
        # Those that have none are told from those whose value is masked.
        shown = redact_labels(alert.labels).get(label)
        return "" if shown is None else context.masked_value(shown, label, "labels")

    return Counter(map(value, alerts))


def _key(alert: Alert) -> tuple[str, str, str]:
    since = alert.active_since.astimezone(UTC).isoformat(timespec="microseconds")
    return since, bounded_key(alert.name), bounded_key(str(sorted(alert.labels.items())))


def _counts_and_notes(result: Mapping[str, Any]) -> list[str]:
    lines = []
    groups = result["groups"]
    if isinstance(groups, dict):
        counts = [{"value": value or "(none)", "alerts": n} for value, n in groups.items()]
        lines.append(table(counts, ["value", "alerts"]))
    return [*lines, *notes(result["notes"])]
