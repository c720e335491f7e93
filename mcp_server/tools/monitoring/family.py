"""The monitoring family: its backends, tools and resources."""

from __future__ import annotations

from typing import Any, Protocol

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.catalog import Tool
from mcp_server.tools.cursor import CursorCipher
from mcp_server.tools.monitoring.alertmanager import Alertmanager
from mcp_server.tools.monitoring.alerts import Alerts
from mcp_server.tools.monitoring.create_dashboard import create_dashboard
from mcp_server.tools.monitoring.dashboards import dashboard_resources
from mcp_server.tools.monitoring.get_alerts import get_alerts
from mcp_server.tools.monitoring.grafana import Grafana
from mcp_server.tools.monitoring.health_check import health_check
from mcp_server.tools.monitoring.list_metrics import list_metrics
from mcp_server.tools.monitoring.names import NearNames
from mcp_server.tools.monitoring.prometheus import Prometheus
from mcp_server.tools.monitoring.query_metrics import query_metrics
from mcp_server.tools.resources import Resource
from mcp_server.tools.workloads import Workloads

__all__ = ["Monitoring"]


class _Backend(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


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
        alerts, near = Alerts(prometheus, alertmanager), NearNames()
        self._tools: list[Tool[Any, Any]] = [
            query_metrics(prometheus, cipher, near),
            list_metrics(prometheus, cipher, near),
            get_alerts(alerts, cipher),
            health_check(prometheus, alerts, workloads),
        ]
        self._resources: list[Resource] = []
        if settings.grafana is not None:
            grafana = Grafana(settings.grafana)
            self._backends.append(grafana)
            self._tools.append(create_dashboard(settings.grafana, grafana, prometheus))
            self._resources = dashboard_resources(grafana)

    async def start(self) -> None:
        """Open the backends' connection pools."""
        for backend in self._backends:
            await backend.start()

    async def stop(self) -> None:
        """Close the backends' connections."""
        for backend in self._backends:
            await backend.stop()

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declarations of the tools."""
        return self._tools

    def resources(self) -> list[Resource]:
        """Return the declarations of the resources: none without Grafana."""
        return self._resources
