"""The monitoring family: its backends and its tools."""

from __future__ import annotations

from typing import Any, Protocol

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.catalog import Tool
from mcp_server.tools.cursor import CursorCipher
from mcp_server.tools.monitoring.alertmanager import Alertmanager
from mcp_server.tools.monitoring.alerts import Alerts
from mcp_server.tools.monitoring.dashboards import Dashboards
from mcp_server.tools.monitoring.grafana import Grafana
from mcp_server.tools.monitoring.health import Health
from mcp_server.tools.monitoring.metrics import Metrics
from mcp_server.tools.monitoring.prometheus import Prometheus
from mcp_server.tools.resources import Resource
from mcp_server.tools.workloads import Workloads

__all__ = ["Monitoring"]


class _Backend(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class _Part(Protocol):
    def tools(self) -> list[Tool[Any, Any]]: ...


class Monitoring:
    """The monitoring tools over their backends.

    Args:
        workloads: the family that knows the workloads; None: none is configured.
        cipher: encrypts cursors; None: cursors are valid for this object only.
    """

    def __init__(
        self,
        settings: MonitoringSettings,
        *,
        workloads: Workloads | None = None,
        cipher: CursorCipher | None = None,
    ) -> None:
        cipher = cipher or CursorCipher()
        prometheus, alertmanager = Prometheus(settings), Alertmanager(settings)
        self._backends: list[_Backend] = [prometheus, alertmanager]
        alerts = Alerts(prometheus, alertmanager, cipher)
        self._parts: list[_Part] = [
            Metrics(prometheus, cipher),
            alerts,
            Health(prometheus, alerts, workloads),
        ]
        self._dashboards: Dashboards | None = None
        if settings.grafana is not None:
            grafana = Grafana(settings.grafana)
            self._dashboards = Dashboards(settings.grafana, grafana, prometheus)
            self._backends.append(grafana)
            self._parts.append(self._dashboards)

    async def start(self) -> None:
        """Open the backends' connection pools."""
        for backend in self._backends:
            await backend.start()

    async def stop(self) -> None:
        """Close the backends' connections."""
        for backend in self._backends:
            await backend.stop()

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declarations of this family."""
        return [tool for part in self._parts for tool in part.tools()]

    def resources(self) -> list[Resource]:
        """Return the documents of this family: none without Grafana."""
        return [] if self._dashboards is None else self._dashboards.resources()
