"""The namespaces of a cluster, as a document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_server.tools.catalog import Scope, ToolContext
from mcp_server.tools.kubernetes.cluster import Cluster
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.resources import Resource, rows_that_fit

__all__ = ["NamespaceReader"]

_MAX_NAMESPACES = 1000


class NamespaceReader:
    """The template `enterprise://k8s/{cluster}/namespaces`."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    def resources(self) -> list[Resource]:
        """Return the declaration."""
        return [
            Resource(
                uri="enterprise://k8s/{cluster}/namespaces",
                name="k8s-namespaces",
                title="Namespaces of a cluster",
                description="The names of all namespaces of a Kubernetes cluster, and their phases.",
                permission="k8s:get",
                read=self._read,
                complete=self._complete,
                lists="namespace",
                defaults={"cluster": self._clusters.default},
                source="Kubernetes",
                scope=Scope(cluster="cluster", cluster_wide=True),
                # What the document lists, and what its parameter takes, are names of things.
                revealed_by={
                    "name": ("namespace", "cluster"),
                    "namespace": ("name",),
                },
            )
        ]

    async def _read(self, context: ToolContext, parameters: Mapping[str, str]) -> str:
        cluster = self._clusters.find(parameters["cluster"], context)
        document = await self._list(cluster, context, context.at_most(_MAX_NAMESPACES))
        with cluster.parsing():
            more = bool(document["metadata"].get("continue"))
            found = [
                {"name": item["metadata"]["name"], "phase": item.get("status", {}).get("phase")}
                for item in document["items"]
            ]
        shown = rows_that_fit(found)
        return json.dumps(
            {
                "cluster": cluster.name,
                "namespaces": shown,
                "truncated": more or len(shown) < len(found),
            }
        )

    async def _list(self, cluster: Cluster, context: ToolContext, most: int) -> dict[str, Any]:
        return await cluster.get(
            "/api/v1/namespaces",
            {},
            context,
            what="list of namespaces",
            query={"limit": str(most)},
        )

    async def _complete(
        self, name: str, text: str, given: Mapping[str, str], context: ToolContext
    ) -> list[str]:
        if name == "cluster":
            return [cluster for cluster in self._clusters.names if cluster.startswith(text)]
        cluster = self._clusters.find(given["cluster"], context)
        document = await self._list(cluster, context, _MAX_NAMESPACES)
        with cluster.parsing():
            names = [item["metadata"]["name"] for item in document["items"]]
            return [each for each in names if each.startswith(text)]
