"""The tool `k8s:get_rollout_status`, and how far a deployment's rollout is."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from mcp_server.redaction import redact_text
from mcp_server.tools.catalog import Result, Tool, ToolContext
from mcp_server.tools.kubernetes.arguments import IN_ONE_NAMESPACE, DeploymentArguments
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.deployments import read_deployment
from mcp_server.tools.kubernetes.lists import TABLE, rows_of_table
from mcp_server.tools.kubernetes.pods import pod_of
from mcp_server.tools.text import truncate_middle

__all__ = ["REVEALED_BY", "Rollout", "available_updated_replicas", "rollout_of", "rollout_status"]

_POD_PAGE = 500
_MAX_COUNTED_PODS = 5000
_MAX_MESSAGE = 1000

REVEALED_BY = dict.fromkeys(("desired", "updated", "available"), ("message",))
"""The message of a rollout contains these numbers."""


class Rollout(Result):
    """Progress of the current change of a deployment.

    `pods` counts the pods by status while the rollout is not complete.
    """

    state: Literal["complete", "progressing", "paused", "failed"]
    message: str
    desired: int
    updated: int
    ready: int
    available: int
    revision: str | None
    pods: dict[str, int]


def rollout_status(clusters: Clusters) -> Tool[DeploymentArguments, Rollout]:
    """Return the declaration of `k8s:get_rollout_status`."""
    return Tool(
        name="k8s:get_rollout_status",
        title="Get rollout status",
        description="Tell how far a deployment's rollout is, and what holds it up.",
        permission="k8s:get",
        arguments=DeploymentArguments,
        result=Rollout,
        run=partial(_run, clusters),
        render=_render,
        revealed_by=REVEALED_BY,
        read_only=True,
        source="Kubernetes",
        scope=IN_ONE_NAMESPACE,
        canonicalize=clusters.with_default_cluster,
    )


async def _run(clusters: Clusters, arguments: DeploymentArguments, context: ToolContext) -> Rollout:
    cluster = clusters.find(arguments.cluster, context)
    deployment = await read_deployment(cluster, arguments, context)
    with cluster.parsing():
        rollout = rollout_of(deployment)
        selector = _selector_text(deployment["spec"]["selector"])
    if rollout.state == "complete" or not selector:
        return rollout
    query = {"limit": str(_POD_PAGE), "includeObject": "None", "labelSelector": selector}
    pods: collections.Counter[str] = collections.Counter()
    while True:
        table = await cluster.get(
            "/api/v1/namespaces/{namespace}/pods",
            {"namespace": arguments.namespace},
            context,
            what=f"pods of namespace {arguments.namespace}",
            query=query,
            accept=TABLE,
        )
        with cluster.parsing():
            pods.update(
                context.masked_value(pod_of(row).status, "status")
                for row in rows_of_table(table, arguments.namespace)
            )
            query["continue"] = table["metadata"].get("continue") or ""
        if not query["continue"]:
            return rollout.model_copy(update={"pods": dict(pods)})
        if pods.total() >= _MAX_COUNTED_PODS:
            message = f"{rollout.message} (only {pods.total()} pods were counted)"
            return rollout.model_copy(update={"pods": dict(pods), "message": message})


def rollout_of(deployment: Mapping[str, Any]) -> Rollout:
    """Return the progress of a deployment's rollout, by the rules of `kubectl rollout status`."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    status = deployment.get("status", {})
    desired = spec.get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    progressing = conditions.get("Progressing", {})
    failure = conditions.get("ReplicaFailure", {})
    state: Literal["complete", "progressing", "paused", "failed"] = "progressing"
    if spec.get("paused"):
        state, message = "paused", "the rollout is paused"
    elif metadata.get("generation", 0) > status.get("observedGeneration", 0):
        message = "the controller has not observed the change yet"
    elif progressing.get("reason") == "ProgressDeadlineExceeded":
        state, message = "failed", progressing.get("message") or "the rollout made no progress"
    elif failure.get("status") == "True":
        message = failure.get("message") or "pods cannot be created"
    elif updated < desired:
        message = f"{updated} of {desired} replicas are updated"
    elif status.get("replicas", 0) > updated:
        message = f"{status.get('replicas', 0) - updated} old replicas are still there"
    elif available < updated:
        message = f"{available} of {updated} updated replicas are available"
    else:
        state, message = "complete", "the rollout is complete"
    return Rollout(
        state=state,
        message=truncate_middle(redact_text(message), _MAX_MESSAGE),
        desired=desired,
        updated=updated,
        ready=status.get("readyReplicas", 0),
        available=available,
        revision=(metadata.get("annotations") or {}).get("deployment.kubernetes.io/revision"),
        pods={},
    )


def available_updated_replicas(deployment: Mapping[str, Any]) -> int:
    """Return how many replicas of the newest template are certainly available.

    The status counts available replicas of all templates together, so old ones are subtracted.
    """
    metadata, status = deployment["metadata"], deployment.get("status", {})
    if metadata.get("generation", 0) > status.get("observedGeneration", 0):
        return 0
    updated = status.get("updatedReplicas", 0)
    old = status.get("replicas", 0) - updated
    return int(min(updated, max(0, status.get("availableReplicas", 0) - old)))


def _selector_text(selector: Mapping[str, Any]) -> str:
    """Return a LabelSelector object as the text of a query; empty if it selects nothing."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for rule in selector.get("matchExpressions") or ():
        values = ",".join(rule.get("values") or ())
        match rule["operator"]:
            case "In":
                parts.append(f"{rule['key']} in ({values})")
            case "NotIn":
                parts.append(f"{rule['key']} notin ({values})")
            case "Exists":
                parts.append(rule["key"])
            case "DoesNotExist":
                parts.append(f"!{rule['key']}")
    return ",".join(parts)


def _render(result: Mapping[str, Any]) -> str:
    text = (
        f"{result['state']}: {result['message']} "
        f"(desired {result['desired']}, updated {result['updated']}, ready {result['ready']}, "
        f"available {result['available']})"
    )
    pods = result["pods"]
    if isinstance(pods, dict):
        pods = ", ".join(f"{number} {state}" for state, number in pods.items())
    return f"{text}\npods: {pods}" if pods else text
