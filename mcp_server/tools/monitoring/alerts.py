"""Alerts of Prometheus and Alertmanager, joined.

Prometheus knows which alerts are pending or firing. Alertmanager knows which of them are silenced or
inhibited, and alerts from other senders. An alert of Prometheus is the alert of Alertmanager that has
all its labels: external labels may have been added on the way. If there is none, it is the alert of the
same name that differs in no common label: `alert_relabel_configs` may have dropped labels. Only if
relabeling changes a value does an alert appear twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mcp_server.tools.catalog import Result, ToolError
from mcp_server.tools.gather import gather_or_cancel
from mcp_server.tools.monitoring.alertmanager import Alertmanager, KnownAlert, MatchersRefused
from mcp_server.tools.monitoring.prometheus import Prometheus, PrometheusAlert, TimeSeries
from mcp_server.tools.offload import offload

__all__ = ["Alert", "Alerts"]


class Alert(Result):
    """One alert; a missing label or annotation is empty, as in Prometheus."""

    name: str
    severity: str
    instance: str
    summary: str
    active_since: datetime
    state: str
    """Silenced or inhibited if Alertmanager suppresses the alert; otherwise the state in Prometheus."""
    labels: dict[str, str]


class Alerts:
    """The alerts of one Prometheus and one Alertmanager."""

    def __init__(self, prometheus: Prometheus, alertmanager: Alertmanager) -> None:
        self._prometheus = prometheus
        self._alertmanager = alertmanager

    async def current(self, matchers: list[str]) -> tuple[list[Alert], ToolError | None]:
        """Return the alerts that match all matchers, and the error of Alertmanager, if any.

        Raises:
            ToolError: a matcher is invalid, or Prometheus does not answer.
        """
        raised, (known, silence) = await gather_or_cancel(
            self._raised(matchers), self._known(matchers)
        )
        size = len(raised) + (len(known.everything) if known else 0)
        return await offload(size, _joined, raised, known), silence

    async def _raised(self, matchers: list[str]) -> list[PrometheusAlert]:
        """Return the alerts of Prometheus that match the matchers.

        Its list of alerts takes no matchers, but each alert is also a series `ALERTS`: so Prometheus
        itself evaluates the matchers, regular expressions included.
        """
        if not matchers:
            return await self._prometheus.alerts()
        alerts, answer = await gather_or_cancel(
            self._prometheus.alerts(),
            self._prometheus.query(f"ALERTS{{{', '.join(matchers)}}}"),
        )
        return await offload(len(alerts), _among, alerts, answer.series)

    async def _known(self, matchers: list[str]) -> tuple[_Known | None, ToolError | None]:
        """Return the alerts of Alertmanager, or its error.

        Raises:
            MatchersRefused: a matcher is invalid.
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
    """Alerts of Alertmanager: all alerts, and the alerts that match the matchers."""

    everything: list[KnownAlert]
    rows_that_fit: list[KnownAlert]


def _among(
    alerts: Iterable[PrometheusAlert], series: Iterable[TimeSeries]
) -> list[PrometheusAlert]:
    """Return the alerts that have a series `ALERTS`."""
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
    """Alerts of Alertmanager that are the same alert in Prometheus.

    Attributes:
        quiet: whether no copy notifies: a pair of Prometheus servers may have sent the alert twice.
        silenced: whether a copy is silenced.
        found: whether an alert of Prometheus matched them.
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
    """The alerts of one name in Alertmanager, indexed by the values of labels.

    Alerts of one name nearly always have the same label names: thousands of alerts have a few different
    sets of label names.
    """

    def __init__(self) -> None:
        self._by_names: dict[_Names, list[KnownAlert]] = defaultdict(list)
        self._by_values: dict[tuple[_Names, _Names], dict[_Labels, _Copies]] = {}

    def add(self, alert: KnownAlert) -> None:
        self._by_names[frozenset(alert.labels)].append(alert)

    def of(self, alert: PrometheusAlert) -> list[_Copies]:
        """Return the alerts that match an alert of Prometheus; see the module."""
        same = self._agreeing(
            alert, [names for names in self._by_names if alert.labels.keys() <= names]
        )
        if same or alert.state != "firing":
            return same
        return self._agreeing(alert, list(self._by_names))

    def found(self) -> Iterator[_Labels]:
        """Yield the labels of the alerts that matched an alert of Prometheus."""
        for index in self._by_values.values():
            for copies in index.values():
                if copies.found:
                    yield from (frozenset(each.labels.items()) for each in copies.alerts)

    def _agreeing(self, alert: PrometheusAlert, sets: Iterable[_Names]) -> list[_Copies]:
        """Return the alerts with one of these sets of label names that differ in no common label."""
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
