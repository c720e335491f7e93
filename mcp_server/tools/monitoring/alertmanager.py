"""Alertmanager, as its HTTP API (v2) shows it: which alerts it knows and which it keeps quiet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.backend import BackendUnavailable, parsing
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.monitoring.access import backend_of
from mcp_server.tools.offload import offload

__all__ = ["Alertmanager", "KnownAlert", "MatchersRefused"]


class MatchersRefused(ToolError):
    """Alertmanager cannot read the matchers; the caller can mend them."""

    def __init__(self, said: object) -> None:
        super().__init__(f"Alertmanager refused the matchers: {said}")


@dataclass(frozen=True, slots=True)
class KnownAlert:
    """An alert that Alertmanager has; it may carry more labels than Prometheus shows of it."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    active_since: datetime
    silenced: bool
    inhibited: bool


class Alertmanager:
    """A client of one Alertmanager."""

    def __init__(self, settings: MonitoringSettings) -> None:
        self._http = backend_of(
            "Alertmanager", settings.alertmanager_url, settings.alertmanager, settings
        )

    async def start(self) -> None:
        """Open the connection pool.

        Raises:
            SettingsError: the file of the token cannot be used.
        """
        await self._http.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._http.stop()

    async def alerts(self, matchers: Sequence[str] = ()) -> list[KnownAlert]:
        """Return the alerts that are not resolved and fit all matchers.

        Raises:
            MatchersRefused: a matcher is not valid; BackendUnavailable: it does not answer.
            ToolError: it limits our calls, or has more alerts than are read.
        """
        status, body = await self._http.get(
            "/api/v2/alerts", [("filter", matcher) for matcher in matchers]
        )
        if status == 400 and matchers:
            raise MatchersRefused(body)
        if status != 200 or not isinstance(body, list):
            raise BackendUnavailable("Alertmanager", f"it answered HTTP {status}")
        with parsing("Alertmanager"):
            return await offload(len(body), _alerts, body)


def _alerts(found: Sequence[Mapping[str, Any]]) -> list[KnownAlert]:
    return [
        KnownAlert(
            labels=dict(alert["labels"]),
            annotations=dict(alert["annotations"]),
            active_since=datetime.fromisoformat(alert["startsAt"]),
            silenced=bool(alert["status"]["silencedBy"]),
            inhibited=bool(alert["status"]["inhibitedBy"]),
        )
        for alert in found
    ]
