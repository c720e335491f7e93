"""Client of the HTTP API (v2) of Alertmanager: its alerts, and which are silenced or inhibited."""

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
    """Alertmanager cannot parse the matchers; the caller can correct them."""

    def __init__(self, said: object) -> None:
        super().__init__(f"Alertmanager refused the matchers: {said}")


@dataclass(frozen=True, slots=True)
class KnownAlert:
    """An alert in Alertmanager; it may have more labels than in Prometheus."""

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
        """Return the unresolved alerts that match all matchers.

        Raises:
            MatchersRefused: a matcher is invalid.
            BackendUnavailable: Alertmanager does not answer.
            ToolError: Alertmanager rate-limits this server, or has more alerts than this client reads.
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
