"""Workloads without a cluster, in the place of the Kubernetes family.

Does not prove that a cluster is read rightly, only what is made of an answer, a refusal, an outage.
"""

from __future__ import annotations

from collections.abc import Mapping

from mcp_server.tools.catalog import ToolContext, ToolError
from mcp_server.tools.workloads import ServiceHealth, Workload

__all__ = ["FakeWorkloads"]


class FakeWorkloads:
    """Answers every question with one Deployment, or with an error.

    Attributes:
        asked: cluster, namespace and service of the last question.

    Args:
        metrics: what the label `cluster` of a cluster's metrics says, where it is not its name.
    """

    default_cluster = "main"

    def __init__(
        self,
        *,
        ready: int = 2,
        endpoints: int | None = 2,
        error: ToolError | None = None,
        metrics: Mapping[str, str] | None = None,
    ) -> None:
        self._metrics = metrics or {}
        self._ready = ready
        self._endpoints = endpoints
        self._error = error
        self.asked: tuple[str | None, str, str] | None = None

    def metrics_cluster(self, cluster: str | None, _context: ToolContext) -> str:
        """Return what was given for it, or its name."""
        name = cluster or self.default_cluster
        return self._metrics.get(name, name)

    async def service_health(
        self, context: ToolContext, *, cluster: str | None, namespace: str, service: str
    ) -> ServiceHealth:
        """Return two desired pods, of which some are ready."""
        self.asked = (cluster, namespace, service)
        if self._error is not None:
            raise self._error
        return ServiceHealth(
            cluster=cluster or "main",
            namespace=namespace,
            workloads=[Workload(kind="Deployment", name=service, desired=2, ready=self._ready)],
            endpoints_ready=self._endpoints,
            endpoints_not_ready=None if self._endpoints is None else 0,
        )
