"""The monitoring family: its backends and its tools."""

from __future__ import annotations

from typing import Any

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.catalog import Tool
from mcp_server.tools.monitoring.alertmanager import Alertmanager
from mcp_server.tools.monitoring.alerts import Alerts
from mcp_server.tools.monitoring.metrics import Metrics
from mcp_server.tools.monitoring.prometheus import Prometheus

__all__ = ["Monitoring"]


class Monitoring:
    """The monitoring tools over their backends."""

    def __init__(self, settings: MonitoringSettings) -> None:
        prometheus, alertmanager = Prometheus(settings), Alertmanager(settings)
        self._backends = (prometheus, alertmanager)
        self._parts = (Metrics(prometheus), Alerts(prometheus, alertmanager))

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
