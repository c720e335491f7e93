"""Names of kinds: every name that kubectl accepts for a kind of objects."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from mcp_server.tools.catalog import InvalidArguments, ToolContext, ToolError
from mcp_server.tools.kubernetes.cluster import Cluster
from mcp_server.tools.offload import offload

__all__ = ["BUILT_IN", "kind_of", "named"]

# Kind, plural and short names of the core group, and of the kinds in other groups that most events are
# about. The singular is the kind in lower case.
_NAMES = """
    ComponentStatus componentstatuses cs
    ConfigMap configmaps cm
    CronJob cronjobs cj
    DaemonSet daemonsets ds
    Deployment deployments deploy
    Endpoints endpoints ep
    Event events ev
    HorizontalPodAutoscaler horizontalpodautoscalers hpa
    Ingress ingresses ing
    Job jobs
    LimitRange limitranges limits
    Namespace namespaces ns
    Node nodes no
    PersistentVolume persistentvolumes pv
    PersistentVolumeClaim persistentvolumeclaims pvc
    Pod pods po
    PodDisruptionBudget poddisruptionbudgets pdb
    PodTemplate podtemplates
    ReplicaSet replicasets rs
    ReplicationController replicationcontrollers rc
    ResourceQuota resourcequotas quota
    Secret secrets
    Service services svc
    ServiceAccount serviceaccounts sa
    StatefulSet statefulsets sts
"""
BUILT_IN = {
    name.lower(): names[0] for names in map(str.split, _NAMES.strip().split("\n")) for name in names
}
"""Kinds that need no request to the cluster, by their names in lower case."""
# All groups in one response, see https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery
_DISCOVERY = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    for version in ("v2", "v2beta1")
)
_MAX_SUGGESTIONS = 3


async def kind_of(asked: str, cluster: Cluster, context: ToolContext) -> str:
    """Return the kind of a name.

    Args:
        asked: kind, plural, singular or short name, in any case.

    Raises:
        InvalidArguments: the cluster has no such kind.
        NotAllowed, BackendUnavailable, ToolError: the cluster does not list its kinds.
    """
    name = asked.lower()
    if name in BUILT_IN:
        return BUILT_IN[name]
    document = await cluster.get(
        "/apis",
        {},
        context,
        what=f"list of kinds, needed to find {asked}",
        # Versions before 1.26 know none of the first two types, and list the groups only.
        accept=f"{_DISCOVERY},application/json",
    )
    if document["kind"] != "APIGroupDiscoveryList":
        raise ToolError(
            f"{asked} is no built-in kind, and {cluster.title} does not list others at once "
            "(Kubernetes 1.26 and newer do); leave kind out and give the name of the object"
        )
    with cluster.parsing():
        # If two kinds share a name, the first wins, as in kubectl.
        known = dict(reversed(list(named(document)))) | BUILT_IN
    if name in known:
        return known[name]
    near: list[str] = []
    if "kind" not in context.masked:
        names = await offload(
            len(known), difflib.get_close_matches, name, list(known), 3 * _MAX_SUGGESTIONS
        )
        near = list(dict.fromkeys(known[each] for each in names))[:_MAX_SUGGESTIONS]
    hint = f"near: {', '.join(near)}" if near else "a kind is such as Pod, pods or po"
    raise InvalidArguments(f"kind: {cluster.title} has no kind {asked}; {hint}")


def named(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each name, in lower case, and the kind, of all kinds in an APIGroupDiscoveryList."""
    for group in document["items"]:
        for version in group["versions"]:
            for resource in version["resources"]:
                kind = (resource.get("responseKind") or {}).get("kind")
                if kind:
                    names = (kind, resource["resource"], resource.get("singularResource") or kind)
                    for name in (*names, *(resource.get("shortNames") or ())):
                        yield name.lower(), kind
