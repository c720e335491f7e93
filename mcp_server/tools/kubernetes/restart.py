"""The tool `k8s:restart_deployment`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from mcp_server.tools.catalog import Result, Tool, ToolContext, ToolError
from mcp_server.tools.deadline import remaining
from mcp_server.tools.kubernetes.arguments import IN_ONE_NAMESPACE, DeploymentArguments
from mcp_server.tools.kubernetes.cluster import VERIFY_HINT, Cluster, NotFound
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.deployments import (
    DEPLOYMENT,
    path_parameters,
    read_deployment,
    title_of,
)
from mcp_server.tools.kubernetes.rollout import (
    REVEALED_BY,
    Rollout,
    available_updated_replicas,
    rollout_of,
)

__all__ = ["restart_deployment"]

_POLL_S = 0.5
_MAX_POLL_S = 4.0
# Fields whose values a progress notification contains.
_IN_PROGRESS_REPORTS = ("message", *REVEALED_BY)


class RestartArguments(DeploymentArguments):
    """Arguments of `restart_deployment`."""

    wait_s: Annotated[int, Field(ge=0, le=60, description="Seconds to wait for the rollout")] = 0


class Restart(Result):
    """A restart; `state` and `message` of its rollout if the call waited for it."""

    restarted_at: str
    state: str | None
    message: str | None


def restart_deployment(clusters: Clusters) -> Tool[RestartArguments, Restart]:
    """Return the declaration of `k8s:restart_deployment`."""
    return Tool(
        name="k8s:restart_deployment",
        title="Restart deployment",
        description="Replace a deployment's pods one after another.",
        permission="k8s:restart",
        arguments=RestartArguments,
        result=Restart,
        run=partial(_run, clusters),
        render=_render,
        revealed_by=REVEALED_BY,
        read_only=False,
        destructive=True,
        verify_hint=VERIFY_HINT,
        idempotent=False,
        source="Kubernetes",
        scope=IN_ONE_NAMESPACE,
        canonicalize=clusters.with_default_cluster,
        timeout_s=70,
    )


async def _run(clusters: Clusters, arguments: RestartArguments, context: ToolContext) -> Restart:
    cluster = clusters.find(arguments.cluster, context)
    deployment = await read_deployment(cluster, arguments, context)
    with cluster.parsing():
        if deployment["spec"].get("paused"):
            raise ToolError(
                f"{title_of(arguments)} is paused: a restart would replace no pod until it is "
                "resumed; nothing was changed. Resume it first, such as with "
                f"kubectl rollout resume deployment/{arguments.deployment}"
            )
    # kubectl writes full seconds: a second restart within the same second would change nothing.
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    annotations = {"kubectl.kubernetes.io/restartedAt": now}
    deployment = await cluster.change(
        "PATCH",
        DEPLOYMENT,
        path_parameters(arguments),
        context,
        what=title_of(arguments),
        body={"spec": {"template": {"metadata": {"annotations": annotations}}}},
    )
    with cluster.parsing_change():
        progress = _progress_of(deployment)
        paused = bool(deployment["spec"].get("paused"))
    rollout = None
    # A deployment that was paused meanwhile accepts the change and replaces no pod: report that.
    if arguments.wait_s or paused:
        rollout = await _wait(cluster, arguments, context, progress)
    return Restart(
        restarted_at=now,
        state=None if rollout is None else rollout.state,
        message=None if rollout is None else rollout.message,
    )


@dataclass(frozen=True, slots=True)
class _Progress:
    """A rollout, the number of its available new replicas, and the deployment's resource version."""

    rollout: Rollout
    available: int
    version: str


def _progress_of(deployment: Mapping[str, Any]) -> _Progress:
    version = str(deployment["metadata"]["resourceVersion"])
    return _Progress(rollout_of(deployment), available_updated_replicas(deployment), version)


async def _wait(
    cluster: Cluster, arguments: RestartArguments, context: ToolContext, progress: _Progress
) -> Rollout:
    """Follow the rollout until it ends or `wait_s` is over, and return its last known progress.

    The restart is already made, so an error while waiting (a broken watch, an unavailable cluster, a
    role without the verb watch) does not fail the call: the message names the unknown part.

    Raises:
        NotFound: the deployment was deleted meanwhile.
    """
    wait_s = remaining(arguments.wait_s)
    deadline = time.monotonic() + wait_s
    trouble: ToolError | None = None
    pause_s = _POLL_S
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            while progress.rollout.state == "progressing":
                await _report(context, progress)
                if trouble is None:
                    left_s = max(1, round(deadline - time.monotonic()))
                    # The next read shows why the watch broke, or that the trouble is over.
                    watch = _watch(cluster, arguments, context, progress, left_s)
                    with contextlib.suppress(ToolError, ValueError):
                        async with contextlib.aclosing(watch):
                            async for newer in watch:
                                progress = newer
                                if progress.rollout.state != "progressing":
                                    return progress.rollout
                                await _report(context, progress)
                await asyncio.sleep(pause_s)
                try:
                    deployment = await read_deployment(cluster, arguments, context)
                    with cluster.parsing():
                        progress = _progress_of(deployment)
                except NotFound:
                    raise
                except ToolError as error:
                    # Back off: this call alone must not open the circuit breaker for all others.
                    trouble, pause_s = error, min(2 * pause_s, _MAX_POLL_S)
                else:
                    trouble, pause_s = None, _POLL_S
    rollout = progress.rollout
    if trouble is None or rollout.state != "progressing":
        return rollout
    return rollout.model_copy(
        update={"message": f"{rollout.message}, when it was last known; {trouble}"}
    )


async def _report(context: ToolContext, progress: _Progress) -> None:
    if context.masked.isdisjoint(_IN_PROGRESS_REPORTS):
        rollout = progress.rollout
        await context.progress(progress.available, rollout.desired, rollout.message)


async def _watch(
    cluster: Cluster,
    arguments: DeploymentArguments,
    context: ToolContext,
    progress: _Progress,
    seconds: int,
) -> AsyncGenerator[_Progress]:
    """Yield the progress after `progress`, until the API server ends the watch."""
    async with cluster.stream(
        "/apis/apps/v1/namespaces/{namespace}/deployments",
        {"namespace": arguments.namespace},
        context,
        what=title_of(arguments),
        query={
            "watch": "true",
            "fieldSelector": f"metadata.name={arguments.deployment}",
            "resourceVersion": progress.version,
            "timeoutSeconds": str(seconds),
        },
    ) as stream:
        async for line in stream:
            with cluster.parsing():
                event = json.loads(line)
                if event["type"] not in ("ADDED", "MODIFIED"):
                    return
                progress = _progress_of(event["object"])
            yield progress


def _render(result: Mapping[str, Any]) -> str:
    text = f"restarted at {result['restarted_at']}"
    return f"{text}\n{result['state']}: {result['message']}" if result["state"] else text
