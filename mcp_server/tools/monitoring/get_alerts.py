"""The tool `monitoring:get_alerts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_server.redaction import redact_labels
from mcp_server.tools.catalog import ListArguments, ListResult, Tool, ToolContext
from mcp_server.tools.cursor import (
    LONGEST_KEY,
    Cursor,
    CursorCipher,
    bounded_key,
    fingerprint_of,
)
from mcp_server.tools.monitoring.alerts import Alert, Alerts
from mcp_server.tools.monitoring.matchers import LONGEST_MATCHER, MOST_MATCHERS, matchers_of
from mcp_server.tools.offload import offload
from mcp_server.tools.text import notes, table

__all__ = ["GetAlertsArguments", "get_alerts"]

Severity = Literal["critical", "warning", "info"]
State = Literal["firing", "pending", "silenced", "inhibited"]

_MAX_GROUPS = 50


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
    """The last alert of a page.

    Attributes:
        since: beginning of the alert, RFC 3339 in UTC with microseconds, so that texts sort as times.
    """

    since: Annotated[str, Field(max_length=40)]
    name: Annotated[str, Field(max_length=LONGEST_KEY)]
    labels: Annotated[str, Field(max_length=LONGEST_KEY)]


class GetAlertsResult(ListResult):
    """Alerts, longest active first."""

    alerts: list[Alert]
    groups: dict[str, int] | None
    """Number of alerts on all pages per value of the label `group_by`, largest first. Masked values
    count as one."""
    notes: tuple[str, ...]
    """What is unknown or omitted."""


def get_alerts(alerts: Alerts, cipher: CursorCipher) -> Tool[GetAlertsArguments, GetAlertsResult]:
    """Return the declaration of `monitoring:get_alerts`."""
    return Tool(
        name="monitoring:get_alerts",
        title="Get alerts",
        description="List alerts, the longest active first.",
        permission="tools:read",
        arguments=GetAlertsArguments,
        result=GetAlertsResult,
        run=partial(_run, alerts, cipher),
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


async def _run(
    alerts: Alerts, cipher: CursorCipher, arguments: GetAlertsArguments, context: ToolContext
) -> GetAlertsResult:
    listed = fingerprint_of(arguments)
    after = None if arguments.cursor is None else _After.decode(cipher, arguments.cursor, listed)
    matchers = matchers_of(arguments.matchers) if arguments.matchers else []
    current, unavailable = await alerts.current(matchers)
    if unavailable is not None and arguments.state in ("silenced", "inhibited"):
        raise unavailable
    result_notes = []
    if unavailable is not None:
        # Firing alerts are still known, and matter most in an outage.
        result_notes.append(
            f"{unavailable}. Whether an alert is silenced or inhibited is not known, and alerts that "
            "Alertmanager got from others are missing."
        )
    found, rest = await offload(len(current), _selected, current, arguments, after)
    page = rest[: context.at_most(arguments.limit)]
    more = len(page) < len(rest)

    def cursor_after(rows: int) -> str:
        since, name, labels = _key(page[rows - 1])
        return _After(query=listed, since=since, name=name, labels=labels).encode(cipher)

    groups = None
    if arguments.group_by is not None:
        counted = await offload(len(found), _counted, found, arguments.group_by, context)
        groups = dict(counted.most_common(_MAX_GROUPS))
        if len(counted) > len(groups):
            result_notes.append(
                f"{len(groups)} of {len(counted)} values of {arguments.group_by} are counted"
            )
    return GetAlertsResult(
        alerts=page,
        total=len(found),
        truncated=more,
        next_cursor=cursor_after(len(page)) if more and page else None,
        groups=groups,
        notes=tuple(result_notes),
    ).with_cursor(cursor_after)


def _selected(
    alerts: Iterable[Alert], arguments: GetAlertsArguments, after: _After | None
) -> tuple[list[Alert], list[Alert]]:
    """Return the selected alerts, longest active first, and the ones after the cursor."""
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
    """Return the number of alerts per value of a label, as far as the caller may see the values."""

    def value(alert: Alert) -> str:
        # A missing label is not the same as a masked value.
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
