"""What the cluster knows of a service: its endpoints and the workloads behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_server.tools.catalog import ToolContext
from mcp_server.tools.kubernetes.cluster import Cluster, NotFound
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.reading import rollout_of
from mcp_server.tools.workloads import ServiceHealth, Workload

__all__ = ["ServiceReader"]

_SERVICES = "/api/v1/namespaces/{namespace}/services/{name}"
_DEPLOYMENTS = "/apis/apps/v1/namespaces/{namespace}/deployments"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
_PAGE = "500"


class ServiceReader:
    """Judges a service by its Service, EndpointSlices and Deployments."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def service_health(
        self, context: ToolContext, *, cluster: str | None, namespace: str, service: str
    ) -> ServiceHealth:
        """Return what is known of `service`; see `mcp_server.tools.workloads`."""
        asked = self._clusters.find(cluster)
        place = {"namespace": namespace, "name": service}
        what = f"service {service} in namespace {namespace}"
        try:
            selector = (await asked.get(_SERVICES, place, context, what=what))["spec"].get(
                "selector"
            )
            ready, not_ready = await self._endpoints(asked, place, context)
        except NotFound:
            selector, ready, not_ready = None, None, None
        deployments = await self._all(asked, _DEPLOYMENTS, place, context, what="deployments")
        return ServiceHealth(
            cluster=asked.name,
            namespace=namespace,
            workloads=[
                _workload(document)
                for document in deployments
                if document["metadata"]["name"] == service or _selects(selector, document)
            ],
            endpoints_ready=ready,
            endpoints_not_ready=not_ready,
        )

    async def _endpoints(
        self, cluster: Cluster, place: Mapping[str, str], context: ToolContext
    ) -> tuple[int, int]:
        """Return how many endpoints are ready, and how many are not.

        Slices of the same endpoint, one for each family of addresses, count it once.
        """
        slices = await self._all(
            cluster,
            _SLICES,
            place,
            context,
            what="endpoint slices",
            labels=f"kubernetes.io/service-name={place['name']}",
        )
        states: dict[str, bool] = {}
        for piece in slices:
            for endpoint in piece.get("endpoints") or ():
                target = (endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0]
                # Absent means unknown, which is to be taken for ready (EndpointConditions of the API).
                ready = (endpoint.get("conditions") or {}).get("ready") is not False
                states[target] = states.get(target, True) and ready
        return sum(states.values()), len(states) - sum(states.values())

    async def _all(
        self,
        cluster: Cluster,
        path: str,
        place: Mapping[str, str],
        context: ToolContext,
        *,
        what: str,
        labels: str = "",
    ) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            document = await cluster.get(
                path,
                {"namespace": place["namespace"]},
                context,
                what=f"{what} of namespace {place['namespace']}",
                query={"limit": _PAGE, "labelSelector": labels, "continue": token},
            )
            items += document["items"]
            token = document["metadata"].get("continue") or ""
            if not token:
                return items


def _selects(selector: Mapping[str, str] | None, deployment: Mapping[str, Any]) -> bool:
    """Tell whether a Service's selector takes in the pods of a deployment; an empty one takes none."""
    labels = deployment["spec"]["template"]["metadata"].get("labels") or {}
    return selector.items() <= labels.items() if selector else False


def _workload(document: Mapping[str, Any]) -> Workload:
    rollout = rollout_of(document)
    complete = rollout.state == "complete"
    return Workload(
        kind="Deployment",
        name=document["metadata"]["name"],
        desired=rollout.desired,
        ready=rollout.ready,
        problem=None if complete else rollout.message,
    )
