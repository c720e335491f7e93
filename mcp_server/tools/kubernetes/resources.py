"""The resources `enterprise://k8s/clusters` and `enterprise://k8s/{cluster}/namespaces`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_server.tools.catalog import ToolContext
from mcp_server.tools.kubernetes.arguments import CLUSTER_WIDE
from mcp_server.tools.kubernetes.cluster import Cluster
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.resources import Resource, rows_that_fit

__all__ = ["clusters_resource", "namespaces_resource"]

_MAX_NAMESPACES = 1000


def clusters_resource(clusters: Clusters) -> Resource:
    """Return the declaration of the list of clusters."""

    async def read(_: ToolContext, __: Mapping[str, str]) -> str:
        rows = [{"name": name, "default": name == clusters.default} for name in clusters.names]
        return json.dumps({"clusters": rows})

    return Resource(
        uri="enterprise://k8s/clusters",
        name="k8s-clusters",
        title="Kubernetes clusters",
        description="The clusters that the Kubernetes tools work on, and the default one.",
        permission="tools:read",
        read=read,
        source="Kubernetes",
        revealed_by={"cluster": ("name",)},
    )


def namespaces_resource(clusters: Clusters) -> Resource:
    """Return the declaration of the namespaces of a cluster."""

    async def read(context: ToolContext, parameters: Mapping[str, str]) -> str:
        cluster = clusters.find(parameters["cluster"], context)
        namespaces = await _namespaces(cluster, context, context.at_most(_MAX_NAMESPACES))
        with cluster.parsing():
            more = bool(namespaces["metadata"].get("continue"))
            found = [
                {"name": item["metadata"]["name"], "phase": item.get("status", {}).get("phase")}
                for item in namespaces["items"]
            ]
        rows = rows_that_fit(found)
        return json.dumps(
            {
                "cluster": cluster.name,
                "namespaces": rows,
                "truncated": more or len(rows) < len(found),
            }
        )

    async def complete(
        name: str, text: str, given: Mapping[str, str], context: ToolContext
    ) -> list[str]:
        if name == "cluster":
            return [cluster for cluster in clusters.names if cluster.startswith(text)]
        cluster = clusters.find(given["cluster"], context)
        namespaces = await _namespaces(cluster, context, _MAX_NAMESPACES)
        with cluster.parsing():
            names = [item["metadata"]["name"] for item in namespaces["items"]]
            return [each for each in names if each.startswith(text)]

    return Resource(
        uri="enterprise://k8s/{cluster}/namespaces",
        name="k8s-namespaces",
        title="Namespaces of a cluster",
        description="The names of all namespaces of a Kubernetes cluster, and their phases.",
        permission="k8s:get",
        read=read,
        complete=complete,
        lists="namespace",
        defaults={"cluster": clusters.default},
        source="Kubernetes",
        scope=CLUSTER_WIDE,
        # The rows and the parameter are both names.
        revealed_by={"name": ("namespace", "cluster"), "namespace": ("name",)},
    )


async def _namespaces(cluster: Cluster, context: ToolContext, limit: int) -> dict[str, Any]:
    return await cluster.get(
        "/api/v1/namespaces", {}, context, what="list of namespaces", query={"limit": str(limit)}
    )
