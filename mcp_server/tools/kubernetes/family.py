"""The Kubernetes family: its clusters, tools and resources."""

from __future__ import annotations

from typing import Any

from mcp_server.settings import KubernetesSettings
from mcp_server.tools.catalog import Tool, ToolContext
from mcp_server.tools.cursor import CursorCipher
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.deployments import DEPLOYMENTS
from mcp_server.tools.kubernetes.events import events_tool
from mcp_server.tools.kubernetes.lists import list_tool
from mcp_server.tools.kubernetes.logs import pod_logs
from mcp_server.tools.kubernetes.nodes import NODES
from mcp_server.tools.kubernetes.pods import PODS
from mcp_server.tools.kubernetes.resources import clusters_resource, namespaces_resource
from mcp_server.tools.kubernetes.restart import restart_deployment
from mcp_server.tools.kubernetes.rollout import rollout_status
from mcp_server.tools.kubernetes.scale import scale_deployment
from mcp_server.tools.kubernetes.service_health import service_health
from mcp_server.tools.resources import Resource
from mcp_server.tools.workloads import ServiceHealth

__all__ = ["Kubernetes"]

_LISTED_KINDS = (PODS, DEPLOYMENTS, NODES)


class Kubernetes:
    """The Kubernetes tools and resources over all configured clusters.

    Args:
        cipher: encrypts cursors; None: cursors are valid for this object only.
    """

    def __init__(self, settings: KubernetesSettings, *, cipher: CursorCipher | None = None) -> None:
        self._clusters = Clusters(settings)
        self._cipher = cipher or CursorCipher()

    async def start(self) -> None:
        """Read the credentials of all clusters; no cluster has to be reachable."""
        await self._clusters.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._clusters.stop()

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declarations of the tools."""
        return [
            *(list_tool(kind, self._clusters, self._cipher) for kind in _LISTED_KINDS),
            events_tool(self._clusters, self._cipher),
            pod_logs(self._clusters),
            rollout_status(self._clusters),
            scale_deployment(self._clusters),
            restart_deployment(self._clusters),
        ]

    def resources(self) -> list[Resource]:
        """Return the declarations of the resources."""
        return [clusters_resource(self._clusters), namespaces_resource(self._clusters)]

    @property
    def default_cluster(self) -> str:
        """The name of the default cluster."""
        return self._clusters.default

    def metrics_cluster(self, cluster: str | None, context: ToolContext) -> str:
        """Return the value of the label `cluster` in metrics; see `mcp_server.tools.workloads`."""
        return self._clusters.metrics_cluster(cluster, context)

    async def service_health(
        self, context: ToolContext, *, cluster: str | None, namespace: str, service: str
    ) -> ServiceHealth:
        """Return the health of a service; see `mcp_server.tools.workloads`."""
        found = self._clusters.find(cluster, context)
        return await service_health(found, context, namespace=namespace, service=service)
