"""The health of a service: its Service object, its endpoints and the workloads behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_server.tools.catalog import ToolContext
from mcp_server.tools.gather import gather_or_cancel
from mcp_server.tools.kubernetes.cluster import Cluster, NotAllowed, NotFound
from mcp_server.tools.kubernetes.rollout import rollout_of
from mcp_server.tools.workloads import ServiceHealth, Workload

__all__ = ["service_health", "workload_of"]

_SERVICES = "/api/v1/namespaces/{namespace}/services/{name}"
_SLICES = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
_WORKLOADS = "/apis/apps/v1/namespaces/{namespace}/"
# Whole objects are large: small pages, and at most ten of them per list.
_PAGE = 100
_MAX_OBJECTS = 1000


async def service_health(
    cluster: Cluster, context: ToolContext, *, namespace: str, service: str
) -> ServiceHealth:
    """Return the health of `service`; see `mcp_server.tools.workloads`.

    Objects that the cluster does not allow to read, or that are too many, are reported and no error.
    """
    check = _Check(cluster, context, namespace, service)
    selector, endpoints = await check.service()
    workloads = await gather_or_cancel(*(check.workloads(kind, selector) for kind in _WORKLOAD_OF))
    ready, not_ready = (None, None) if endpoints is None else endpoints
    return ServiceHealth(
        cluster=cluster.name,
        namespace=namespace,
        workloads=[each for found in workloads for each in found],
        endpoints_ready=ready,
        endpoints_not_ready=not_ready,
        endpoints_checked=check.endpoints_checked,
        # Sorted, because the responses arrive in any order.
        not_checked=tuple(sorted(check.not_checked)),
    )


@dataclass(slots=True)
class _Check:
    """One check of a service.

    Attributes:
        not_checked: texts that name each skipped check and the reason.
        endpoints_checked: whether the endpoints were read.
    """

    cluster: Cluster
    context: ToolContext
    namespace: str
    name: str
    not_checked: list[str] = field(default_factory=list)
    endpoints_checked: bool = True

    async def service(self) -> tuple[Mapping[str, str] | None, tuple[int, int] | None]:
        """Return the Service's selector, and its ready and not ready endpoints, or None."""
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
            self.not_checked.append(f"the Service: {refusal}")
            self.endpoints_checked = False
            return None, None
        with self.cluster.parsing():
            selector = document["spec"].get("selector")
        try:
            return selector, await self._endpoints()
        except NotAllowed as refusal:
            self.not_checked.append(f"its endpoints: {refusal}")
            self.endpoints_checked = False
            return selector, None

    async def _endpoints(self) -> tuple[int, int]:
        """Return the numbers of ready and not ready endpoints; terminating ones are neither.

        An endpoint with a slice for each address family counts once.
        """
        states: dict[str, bool] = {}

        def take(piece: Mapping[str, Any]) -> None:
            for endpoint in piece.get("endpoints") or ():
                target = (endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0]
                # Consumers take an absent condition as ready (EndpointConditions in the API).
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
        """Return the workloads of a kind with the service's name, or whose pods its selector matches."""
        found: dict[str, Workload] = {}

        def take(document: Mapping[str, Any]) -> None:
            name = document["metadata"]["name"]
            if name == self.name or _selects(selector, document):
                found[name] = workload_of(kind, document)

        path, what = f"{_WORKLOADS}{kind.lower()}s", f"{kind}s"
        try:
            if not await self._each(path, take, what=what) and self.name not in found:
                # The workload with the service's name may be beyond the limit.
                await self._each(path, take, what=what, fields=f"metadata.name={self.name}")
        except NotAllowed as refusal:
            self.not_checked.append(f"{what}: {refusal}")
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
        """Pass the objects of a list to `take`; return whether these were all."""
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        for _ in range(_MAX_OBJECTS // _PAGE):
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
        self.not_checked.append(f"{what} beyond the first {_MAX_OBJECTS}")
        return False


def _selects(selector: Mapping[str, str] | None, workload: Mapping[str, Any]) -> bool:
    """Return whether a Service's selector matches the pods of a workload; an empty one matches none."""
    labels = workload["spec"]["template"]["metadata"].get("labels") or {}
    return selector.items() <= labels.items() if selector else False


def workload_of(kind: str, document: Mapping[str, Any]) -> Workload:
    """Return the state of an object of that kind."""
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
    if _not_observed(document):
        problem = _NOT_OBSERVED
    elif ready < desired:
        problem = f"{desired - ready} pods are not ready"
    elif strategy.get("type") == "OnDelete":
        pass  # the controller updates a pod when somebody deletes it
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
    if _not_observed(document):
        problem = _NOT_OBSERVED
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


_NOT_OBSERVED = "the controller has not observed the change yet"


def _not_observed(document: Mapping[str, Any]) -> bool:
    observed = int(document.get("status", {}).get("observedGeneration", 0))
    return int(document["metadata"].get("generation", 0)) > observed


_WORKLOAD_OF: Mapping[str, Callable[[Mapping[str, Any]], Workload]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
}
