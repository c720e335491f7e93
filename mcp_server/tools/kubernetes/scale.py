"""The tool `k8s:scale_deployment`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from mcp_server.tools.catalog import Result, Tool, ToolContext, ToolError
from mcp_server.tools.kubernetes.arguments import IN_ONE_NAMESPACE, DeploymentArguments
from mcp_server.tools.kubernetes.cluster import VERIFY_HINT, Cluster, Conflict
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.deployments import DEPLOYMENT, path_parameters, title_of

__all__ = ["scale_deployment"]

_ATTEMPTS = 3
_MAX_AUTOSCALERS = 500


class ScaleArguments(DeploymentArguments):
    """Arguments of `scale_deployment`."""

    replicas: Annotated[int, Field(description="Desired number", ge=0, le=2**31 - 1)]
    expected_current_replicas: Annotated[
        int | None, Field(ge=0, description="Refuse if the current number differs")
    ] = None
    dry_run: Annotated[bool, Field(description="Validate only, change nothing")] = False


class Scale(Result):
    """A change of the number of replicas."""

    before: int
    after: int
    dry_run: bool
    warning: str | None


def scale_deployment(clusters: Clusters) -> Tool[ScaleArguments, Scale]:
    """Return the declaration of `k8s:scale_deployment`."""
    return Tool(
        name="k8s:scale_deployment",
        title="Scale deployment",
        description="Set the number of a deployment's replicas.",
        permission="k8s:scale",
        arguments=ScaleArguments,
        result=Scale,
        run=partial(_run, clusters),
        render=_render,
        read_only=False,
        destructive=True,
        verify_hint=VERIFY_HINT,
        dry_run="dry_run",
        source="Kubernetes",
        scope=IN_ONE_NAMESPACE,
        canonicalize=clusters.with_default_cluster,
    )


async def _run(clusters: Clusters, arguments: ScaleArguments, context: ToolContext) -> Scale:
    cluster = clusters.find(arguments.cluster, context)
    path, parameters, title = f"{DEPLOYMENT}/scale", path_parameters(arguments), title_of(arguments)
    warning = await _autoscaler_warning(cluster, arguments, context)
    expected = arguments.expected_current_replicas
    for attempt in range(1, _ATTEMPTS + 1):
        scale = await cluster.get(path, parameters, context, what=title)
        with cluster.parsing():
            before = scale["spec"].get("replicas", 0)
        if expected is not None and before != expected:
            now = context.masked_value(f"{before} replicas, not {expected}", "before")
            raise ToolError(f"{title} has {now}; nothing was changed")
        # The body has the resource version that was read: a concurrent change is a conflict.
        scale["spec"]["replicas"] = arguments.replicas
        try:
            after = await cluster.change(
                "PUT",
                path,
                parameters,
                context,
                what=title,
                body=scale,
                dry_run=arguments.dry_run,
            )
        except Conflict:
            # The version changes with every pod that becomes ready: try again.
            if attempt == _ATTEMPTS:
                raise
            continue
        break
    with cluster.parsing() if arguments.dry_run else cluster.parsing_change():
        return Scale(
            before=before,
            after=after["spec"].get("replicas", 0),
            dry_run=arguments.dry_run,
            warning=warning,
        )


async def _autoscaler_warning(
    cluster: Cluster, arguments: ScaleArguments, context: ToolContext
) -> str | None:
    """Return a warning if an autoscaler will undo the change, or may do so."""
    try:
        autoscalers = await cluster.get(
            "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers",
            {"namespace": arguments.namespace},
            context,
            what="autoscalers",
            query={"limit": str(_MAX_AUTOSCALERS)},
        )
        with cluster.parsing():
            more = bool(autoscalers["metadata"].get("continue"))
            names = [
                autoscaler["metadata"]["name"]
                for autoscaler in autoscalers["items"]
                if _scales(autoscaler, arguments.deployment)
            ]
    except ToolError as error:
        # Only a warning: the scaling itself must not fail because of it.
        return f"whether an autoscaler manages it is not known: {error}"
    if names:
        name = context.masked_value(names[0], "name")
        return f"the autoscaler {name} manages it and may change the number again"
    if more:
        return f"not known among more than {_MAX_AUTOSCALERS} autoscalers whether one manages it"
    return None


def _scales(autoscaler: Mapping[str, Any], deployment: str) -> bool:
    target = autoscaler["spec"]["scaleTargetRef"]
    return (target["kind"], target["name"]) == ("Deployment", deployment)


def _render(result: Mapping[str, Any]) -> str:
    how = "would go" if result["dry_run"] else "goes"
    text = f"{how} from {result['before']} to {result['after']} replicas"
    return f"{text}\nwarning: {result['warning']}" if result["warning"] else text
