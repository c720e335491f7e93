"""All configured clusters, by name."""

from __future__ import annotations

from typing import TypeVar

from mcp_server.settings import KubernetesSettings
from mcp_server.tools.catalog import Arguments, InvalidArguments, ToolContext
from mcp_server.tools.kubernetes.cluster import Cluster

__all__ = ["Clusters"]

_ArgumentsT = TypeVar("_ArgumentsT", bound=Arguments)


class Clusters:
    """All configured clusters.

    Attributes:
        names: sorted names.
        default: name of the default cluster.
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        self.names = tuple(sorted(settings.clusters))
        self.default = settings.default_cluster
        self._clusters = {
            name: Cluster(
                name, cluster, impersonate=settings.impersonate, timeout_s=settings.timeout_s
            )
            for name, cluster in settings.clusters.items()
        }

        self._metrics = {
            name: cluster.metrics_cluster or name for name, cluster in settings.clusters.items()
        }

    async def start(self) -> None:
        """Read the credentials of all clusters; no cluster has to be reachable."""
        for cluster in self._clusters.values():
            await cluster.start()

    async def stop(self) -> None:
        """Close all connections."""
        for cluster in self._clusters.values():
            await cluster.stop()

    def with_default_cluster(self, arguments: _ArgumentsT) -> _ArgumentsT:
        """Return the arguments of a tool, with the default cluster if they name none."""
        if getattr(arguments, "cluster", None) is not None:
            return arguments
        return arguments.model_copy(update={"cluster": self.default})

    def metrics_cluster(self, name: str | None, context: ToolContext) -> str:
        """Return the value of the label `cluster` in metrics and alerts of a cluster; see `find`."""
        return self._metrics[self.find(name, context).name]

    def find(self, name: str | None, context: ToolContext) -> Cluster:
        """Return a cluster by name; None: the default one.

        Raises:
            InvalidArguments: there is no such cluster.
        """
        cluster = self._clusters.get(self.default if name is None else name)
        if cluster is None:
            known = context.masked_value(", ".join(self.names), "cluster", "name")
            raise InvalidArguments(f"cluster: there is no cluster of that name; known: {known}")
        return cluster
