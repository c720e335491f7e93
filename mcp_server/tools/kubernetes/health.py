"""What the cluster knows of a service: its endpoints and the workloads behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_server.tools.catalog import ToolContext
from mcp_server.tools.gather import gather_or_cancel
from mcp_server.tools.kubernetes.cluster import Cluster, NotAllowed, NotFound
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.reading import rollout_of
from mcp_server.tools.workloads import ServiceHealth, Workload

__all__ = ["ServiceReader", "workload_of"]

_SERVICES = "/api/v1/namespaces/{namespace}/services/{name}"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
_WORKLOADS = "/apis/apps/v1/namespaces/{namespace}/"
# A page of whole objects stays small, and no question takes more than ten of them.
_PAGE = 100
_MOST = 1000


class ServiceReader:
    """Judges a service by its Service, its EndpointSlices, and the workloads behind it."""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def service_health(
        self, context: ToolContext, *, cluster: str | None, namespace: str, service: str
    ) -> ServiceHealth:
        """Return what is known of `service`; see `mcp_server.tools.workloads`.

        What the cluster does not allow to see, or is too much to look at, is said and not an error.
        """
        question = _Question(self._clusters.find(cluster, context), context, namespace, service)
        selector, endpoints = await question.service()
        workloads = await gather_or_cancel(
            *(question.workloads(kind, selector) for kind in _WORKLOAD_OF)
        )
        ready, not_ready = (None, None) if endpoints is None else endpoints
        return ServiceHealth(
            cluster=question.cluster.name,
            namespace=namespace,
            workloads=[each for found in workloads for each in found],
            endpoints_ready=ready,
            endpoints_not_ready=not_ready,
            endpoints_seen=question.endpoints_seen,
            # In whichever order the answers came, they are told in the same.
            unseen=tuple(sorted(question.unseen)),
        )


@dataclass(slots=True)
class _Question:
    """One look at a service.

    Attributes:
        unseen: what was not looked at, in words.
        endpoints_seen: whether it was looked for endpoints.
    """

    cluster: Cluster
    context: ToolContext
    namespace: str
    name: str
    unseen: list[str] = field(default_factory=list)
    endpoints_seen: bool = True

    async def service(self) -> tuple[Mapping[str, str] | None, tuple[int, int] | None]:
        """Return the selector of the Service and how many endpoints are ready and not; None: none."""
        try:
            document = await self.cluster.get(
                _SERVICES,
                {"namespace": self.namespace, "name": self.name},
                self.context,
                what=f"service {self.name} in namespace {self.namespace}",
            )
        except NotFound:
            return None, None
        except NotAllowed as refusal:
            self.unseen.append(f"the Service: {refusal}")
            self.endpoints_seen = False
            return None, None
        with self.cluster.parsing():
            selector = document["spec"].get("selector")
        try:
            return selector, await self._endpoints()
        except NotAllowed as refusal:
            self.unseen.append(f"its endpoints: {refusal}")
            self.endpoints_seen = False
            return selector, None

    async def _endpoints(self) -> tuple[int, int]:
        """Return how many endpoints are ready, and how many are not; those on their way out are neither.

        Slices of the same endpoint, one for each family of addresses, count it once.
        """
        states: dict[str, bool] = {}

        def take(piece: Mapping[str, Any]) -> None:
            for endpoint in piece.get("endpoints") or ():
                target = (endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0]
                # Absent means unknown, which is to be taken for ready (EndpointConditions of the API).
                conditions = endpoint.get("conditions") or {}
                ready = conditions.get("ready") is not False
                if conditions.get("terminating") and not ready:
                    continue
                states[target] = states.get(target, True) and ready

        await self._each(
            _SLICES, take, what="endpoint slices", labels=f"kubernetes.io/service-name={self.name}"
        )
        return sum(states.values()), len(states) - sum(states.values())

    async def workloads(self, kind: str, selector: Mapping[str, str] | None) -> list[Workload]:
        """Return the workloads of a kind that bear the service's name or are behind its selector."""
        found: dict[str, Workload] = {}

        def take(document: Mapping[str, Any]) -> None:
            name = document["metadata"]["name"]
            if name == self.name or _selects(selector, document):
                found[name] = workload_of(kind, document)

        path, what = f"{_WORKLOADS}{kind.lower()}s", f"{kind}s"
        try:
            if not await self._each(path, take, what=what) and self.name not in found:
                # The one of the service's name may stand behind those that were looked at.
                await self._each(path, take, what=what, fields=f"metadata.name={self.name}")
        except NotAllowed as refusal:
            self.unseen.append(f"{what}: {refusal}")
        return list(found.values())

    async def _each(
        self,
        path: str,
        take: Callable[[Mapping[str, Any]], None],
        *,
        what: str,
        labels: str = "",
        fields: str = "",
    ) -> bool:
        """Give all objects of a list to `take`; return whether it were not too many."""
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        for _ in range(_MOST // _PAGE):
            document = await self.cluster.get(
                path,
                {"namespace": self.namespace},
                self.context,
                what=f"{what} of namespace {self.namespace}",
                query=query,
            )
            with self.cluster.parsing():
                for item in document["items"]:
                    take(item)
                query["continue"] = document["metadata"].get("continue") or ""
            if not query["continue"]:
                return True
        self.unseen.append(f"{what} beyond the first {_MOST}")
        return False


def _selects(selector: Mapping[str, str] | None, workload: Mapping[str, Any]) -> bool:
    """Tell whether a Service's selector takes in the pods of a workload; an empty one takes none."""
    labels = workload["spec"]["template"]["metadata"].get("labels") or {}
    return selector.items() <= labels.items() if selector else False


def workload_of(kind: str, document: Mapping[str, Any]) -> Workload:
    """Return what an object of that kind tells of itself."""
    return _WORKLOAD_OF[kind](document)


def _deployment(document: Mapping[str, Any]) -> Workload:
    rollout = rollout_of(document)
    return Workload(
        kind="Deployment",
        name=document["metadata"]["name"],
        desired=rollout.desired,
        ready=rollout.ready,
        problem=None if rollout.state == "complete" else rollout.message,
    )


def _stateful_set(document: Mapping[str, Any]) -> Workload:
    """Return a StatefulSet, judged by the rules of `kubectl rollout status`."""
    spec, status = document["spec"], document.get("status", {})
    desired, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    strategy = spec.get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    updated = status.get("updatedReplicas", 0)
    to_update = desired - rolling.get("partition", 0)
    problem = None
    if _not_taken_up(document):
        problem = _NOT_TAKEN_UP
    elif ready < desired:
        problem = f"{desired - ready} pods are not ready"
    elif strategy.get("type") == "OnDelete":
        pass  # pods change when somebody deletes them
    elif rolling.get("partition"):
        if updated < to_update:
            problem = f"{updated} of {to_update} pods are updated"
    elif status.get("updateRevision") != status.get("currentRevision"):
        problem = f"{updated} of {desired} pods are updated"
    return Workload(
        kind="StatefulSet",
        name=document["metadata"]["name"],
        desired=desired,
        ready=ready,
        problem=problem,
    )


def _daemon_set(document: Mapping[str, Any]) -> Workload:
    """Return a DaemonSet, judged by the rules of `kubectl rollout status`."""
    spec, status = document["spec"], document.get("status", {})
    desired = status.get("desiredNumberScheduled", 0)
    updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    rolling = (spec.get("updateStrategy") or {}).get("type") != "OnDelete"
    problem = None
    if _not_taken_up(document):
        problem = _NOT_TAKEN_UP
    elif not desired:
        problem = "no node is to run it"
    elif rolling and updated < desired:
        problem = f"{updated} of {desired} pods are updated"
    elif available < desired:
        problem = f"{available} of {desired} pods are available"
    return Workload(
        kind="DaemonSet",
        name=document["metadata"]["name"],
        desired=desired,
        ready=status.get("numberReady", 0),
        problem=problem,
    )


_NOT_TAKEN_UP = "the change has not been taken up yet"


def _not_taken_up(document: Mapping[str, Any]) -> bool:
    observed = int(document.get("status", {}).get("observedGeneration", 0))
    return int(document["metadata"].get("generation", 0)) > observed


_WORKLOAD_OF: Mapping[str, Callable[[Mapping[str, Any]], Workload]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
}
