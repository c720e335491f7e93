"""The Kubernetes family: its clusters and its tools."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from mcp_server.settings import KubernetesSettings
from mcp_server.tools.catalog import Scope, Tool, ToolContext, ToolError
from mcp_server.tools.cursor import fingerprint
from mcp_server.tools.deadline import remaining
from mcp_server.tools.kubernetes.cluster import TABLE, VERIFY_HINT, Cluster, Conflict, NotFound
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.events import EventReader
from mcp_server.tools.kubernetes.health import ServiceReader
from mcp_server.tools.kubernetes.logs import LogReader
from mcp_server.tools.kubernetes.model import (
    Deployment,
    DeploymentArguments,
    Deployments,
    ListDeploymentsArguments,
    ListPodsArguments,
    Pod,
    Pods,
    Restart,
    RestartArguments,
    Rollout,
    Scale,
    ScaleArguments,
)
from mcp_server.tools.kubernetes.namespaces import NamespaceReader
from mcp_server.tools.kubernetes.paging import Page, Position
from mcp_server.tools.kubernetes.reading import (
    deployments_of_table,
    pods_of_table,
    renewed,
    rollout_of,
    selector_text,
)
from mcp_server.tools.resources import Resource
from mcp_server.tools.workloads import ServiceHealth

__all__ = ["Kubernetes"]

_RowT = TypeVar("_RowT")
_DEPLOYMENT = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
_SCALE_ATTEMPTS = 3
_MOST_AUTOSCALERS = 500
_POD_PAGE = 500
_MOST_COUNTED_PODS = 5000
# What a message about a rollout has numbers of, and what a report of progress tells.
_COUNTED = ("desired", "updated", "available")
_TOLD_ON_THE_WAY = ("message", *_COUNTED)
_REOPEN_S = 0.5
_MAX_REOPEN_S = 4.0


class Kubernetes:
    """The Kubernetes tools over all configured clusters."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._clusters = Clusters(settings)
        self._events = EventReader(self._clusters)
        self._logs = LogReader(self._clusters)
        self._namespaces = NamespaceReader(self._clusters)
        self._services = ServiceReader(self._clusters)

    async def start(self) -> None:
        """Read the credentials of all clusters; none of them need be up."""
        await self._clusters.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._clusters.stop()

    @property
    def default_cluster(self) -> str:
        """The name of the cluster that is meant where none is named."""
        return self._clusters.default

    def metrics_cluster(self, cluster: str | None, context: ToolContext) -> str:
        """Return the label `cluster` of a cluster's metrics; see `mcp_server.tools.workloads`."""
        return self._clusters.metrics_cluster(cluster, context)

    async def service_health(
        self, context: ToolContext, *, cluster: str | None, namespace: str, service: str
    ) -> ServiceHealth:
        """Return what is known of `service`; see `mcp_server.tools.workloads`."""
        return await self._services.service_health(
            context, cluster=cluster, namespace=namespace, service=service
        )

    def tools(self) -> list[Tool[Any, Any]]:
        """Return the declarations of this family."""
        everywhere = Scope(
            namespace="namespace", cluster="cluster", all_namespaces="all_namespaces"
        )
        one = Scope(namespace="namespace", cluster="cluster")
        declared = [
            *self._events.tools(),
            *self._logs.tools(),
            Tool(
                name="k8s:get_pods",
                title="Get pods",
                description="List pods with their true state, readiness, restarts, age and node.",
                permission="k8s:get",
                arguments=ListPodsArguments,
                result=Pods,
                run=self._get_pods,
                read_only=True,
                source="Kubernetes",
                rows="pods",
                columns=tuple(Pod.model_fields),
                scope=everywhere,
            ),
            Tool(
                name="k8s:get_deployments",
                title="Get deployments",
                description="List deployments with their replicas and images.",
                permission="k8s:get",
                arguments=ListDeploymentsArguments,
                result=Deployments,
                run=self._get_deployments,
                read_only=True,
                source="Kubernetes",
                rows="deployments",
                columns=tuple(Deployment.model_fields),
                scope=everywhere,
            ),
            Tool(
                name="k8s:get_rollout_status",
                title="Get rollout status",
                description="Tell how far a deployment's rollout is, and what holds it up.",
                permission="k8s:get",
                arguments=DeploymentArguments,
                result=Rollout,
                run=self._get_rollout_status,
                render=_render_rollout,
                revealed_by=dict.fromkeys(_COUNTED, ("message",)),
                read_only=True,
                source="Kubernetes",
                scope=one,
            ),
            Tool(
                name="k8s:scale_deployment",
                title="Scale deployment",
                description="Set the number of a deployment's replicas.",
                permission="k8s:scale",
                arguments=ScaleArguments,
                result=Scale,
                run=self._scale_deployment,
                render=_render_scale,
                read_only=False,
                destructive=True,
                verify_hint=VERIFY_HINT,
                dry_run="dry_run",
                source="Kubernetes",
                scope=one,
            ),
            Tool(
                name="k8s:restart_deployment",
                title="Restart deployment",
                description="Replace a deployment's pods one after another.",
                permission="k8s:restart",
                arguments=RestartArguments,
                result=Restart,
                run=self._restart_deployment,
                render=_render_restart,
                revealed_by=dict.fromkeys(_COUNTED, ("message",)),
                read_only=False,
                destructive=True,
                verify_hint=VERIFY_HINT,
                idempotent=False,
                source="Kubernetes",
                scope=one,
                timeout_s=70,
            ),
        ]
        return [dataclasses.replace(tool, canonicalize=self._clusters.named) for tool in declared]

    def resources(self) -> list[Resource]:
        """Return the documents of this family."""
        return [
            *self._namespaces.resources(),
            Resource(
                uri="enterprise://k8s/clusters",
                name="k8s-clusters",
                title="Kubernetes clusters",
                description="The clusters that the Kubernetes tools work on, and the default one.",
                permission="tools:read",
                read=self._read_clusters,
                source="Kubernetes",
                revealed_by={"cluster": ("name",)},
            ),
        ]

    async def _get_pods(self, arguments: ListPodsArguments, context: ToolContext) -> Pods:
        rows, page = await self._list(arguments, context, "pods", pods_of_table)
        return Pods(pods=rows, **page.summary()).with_cursor(page.cursor_after)

    async def _get_deployments(
        self, arguments: ListDeploymentsArguments, context: ToolContext
    ) -> Deployments:
        rows, page = await self._list(arguments, context, "deployments", deployments_of_table)
        return Deployments(deployments=rows, **page.summary()).with_cursor(page.cursor_after)

    async def _list(
        self,
        arguments: ListPodsArguments | ListDeploymentsArguments,
        context: ToolContext,
        what: str,
        rows_of: Callable[[Mapping[str, Any], str | None], list[_RowT]],
    ) -> tuple[list[_RowT], Page]:
        """Return the rows that a caller gets of one page of the API server, and the page."""
        cluster = self._clusters.find(arguments.cluster, context)
        listed = fingerprint(
            what,
            cluster.name,
            arguments.place,
            arguments.label_selector,
            arguments.field_selector,
        )
        most = context.at_most(arguments.limit)
        if arguments.cursor is None:
            position = Position(query=listed, size=most)
        else:
            position = Position.decode(arguments.cursor, listed).resized(most)
        # Where the namespace is known, the object behind a row has nothing that is needed.
        query = {"includeObject": "None" if arguments.place else "Metadata"}
        if arguments.label_selector:
            query["labelSelector"] = arguments.label_selector
        if arguments.field_selector:
            query["fieldSelector"] = arguments.field_selector
        group = "/api/v1" if what == "pods" else "/apis/apps/v1"
        place = f"namespace {arguments.place}" if arguments.place else "all namespaces"
        document = await cluster.get(
            f"{group}/namespaces/{{namespace}}/{what}" if arguments.place else f"{group}/{what}",
            {"namespace": arguments.place} if arguments.place else {},
            context,
            what=f"{what} of {place}",
            query={**position.parameters(), **query},
            accept=TABLE,
        )
        with cluster.parsing():
            found = rows_of(document, arguments.place)
            page = Page(position, document["metadata"], len(found), most=most)
        return found[page.shown], page

    async def _get_rollout_status(
        self, arguments: DeploymentArguments, context: ToolContext
    ) -> Rollout:
        cluster = self._clusters.find(arguments.cluster, context)
        document = await self._deployment(cluster, arguments, context)
        with cluster.parsing():
            rollout = rollout_of(document)
            selector = selector_text(document["spec"]["selector"])
        if rollout.state == "complete" or not selector:
            return rollout
        query = {"limit": str(_POD_PAGE), "includeObject": "None", "labelSelector": selector}
        states: collections.Counter[str] = collections.Counter()
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
                states.update(
                    context.masked_value(pod.status, "status")
                    for pod in pods_of_table(table, arguments.namespace)
                )
                query["continue"] = table["metadata"].get("continue") or ""
            if not query["continue"]:
                return rollout.model_copy(update={"pods": dict(states)})
            if states.total() >= _MOST_COUNTED_PODS:
                message = f"{rollout.message} (only {states.total()} pods were counted)"
                return rollout.model_copy(update={"pods": dict(states), "message": message})

    async def _deployment(
        self, cluster: Cluster, arguments: DeploymentArguments, context: ToolContext
    ) -> dict[str, Any]:
        return await cluster.get(_DEPLOYMENT, _names(arguments), context, what=_what(arguments))

    async def _scale_deployment(self, arguments: ScaleArguments, context: ToolContext) -> Scale:
        cluster = self._clusters.find(arguments.cluster, context)
        path, names, what = f"{_DEPLOYMENT}/scale", _names(arguments), _what(arguments)
        warning = await self._autoscaled(cluster, arguments, context)
        expected = arguments.expected_current_replicas
        for attempt in range(1, _SCALE_ATTEMPTS + 1):
            scale = await cluster.get(path, names, context, what=what)
            with cluster.parsing():
                before = scale["spec"].get("replicas", 0)
            if expected is not None and before != expected:
                now = context.masked_value(f"{before} replicas, not {expected}", "before")
                raise ToolError(f"{what} has {now}; nothing was changed")
            # With the resource version that was read: a change in between is refused.
            scale["spec"]["replicas"] = arguments.replicas
            try:
                after = await cluster.change(
                    "PUT",
                    path,
                    names,
                    context,
                    what=what,
                    body=scale,
                    dry_run=arguments.dry_run,
                )
            except Conflict:
                # The version changes with every pod that becomes ready, so that is no reason to stop.
                if attempt == _SCALE_ATTEMPTS:
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

    async def _autoscaled(
        self, cluster: Cluster, arguments: ScaleArguments, context: ToolContext
    ) -> str | None:
        """Return a warning when an autoscaler will undo the change, or when that is not known."""
        try:
            document = await cluster.get(
                "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers",
                {"namespace": arguments.namespace},
                context,
                what="autoscalers",
                query={"limit": str(_MOST_AUTOSCALERS)},
            )
            with cluster.parsing():
                more = bool(document["metadata"].get("continue"))
                names = [
                    autoscaler["metadata"]["name"]
                    for autoscaler in document["items"]
                    if _scales(autoscaler, arguments.deployment)
                ]
        except ToolError as error:
            # It is a warning: that it is not known must not stop the scaling.
            return f"whether an autoscaler manages it is not known: {error}"
        if names:
            name = context.masked_value(names[0], "name")
            return f"the autoscaler {name} manages it and may change the number again"
        if more:
            return (
                f"not known among more than {_MOST_AUTOSCALERS} autoscalers whether one manages it"
            )
        return None

    async def _restart_deployment(
        self, arguments: RestartArguments, context: ToolContext
    ) -> Restart:
        cluster = self._clusters.find(arguments.cluster, context)
        document = await self._deployment(cluster, arguments, context)
        with cluster.parsing():
            if document["spec"].get("paused"):
                raise ToolError(
                    f"{_what(arguments)} is paused: a restart would replace no pod until it is "
                    "resumed; nothing was changed. Resume it first, such as with "
                    f"kubectl rollout resume deployment/{arguments.deployment}"
                )
        # kubectl writes full seconds: the second restart within one would change nothing.
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        annotations = {"kubectl.kubernetes.io/restartedAt": now}
        document = await cluster.change(
            "PATCH",
            _DEPLOYMENT,
            _names(arguments),
            context,
            what=_what(arguments),
            body={"spec": {"template": {"metadata": {"annotations": annotations}}}},
        )
        with cluster.parsing_change():
            state = _state_of(document)
            paused = bool(document["spec"].get("paused"))
        rollout = None
        # One that was paused meanwhile takes the change and replaces nothing, which must be said.
        if arguments.wait_s or paused:
            rollout = await self._wait(cluster, arguments, context, state)
        return Restart(
            restarted_at=now,
            state=None if rollout is None else rollout.state,
            message=None if rollout is None else rollout.message,
        )

    async def _wait(
        self,
        cluster: Cluster,
        arguments: RestartArguments,
        context: ToolContext,
        state: _State,
    ) -> Rollout:
        """Follow the rollout until it ends or the time is over, and return how far it is then.

        The change is made already, so no trouble of asking ends the call: a watch that is cut, a
        cluster that is away, a role that may not watch. What is last known is returned, and why
        it is not newer.

        Raises:
            NotFound: the deployment was deleted meanwhile.
        """
        wait_s = remaining(arguments.wait_s)
        deadline = time.monotonic() + wait_s
        trouble: ToolError | None = None
        pause_s = _REOPEN_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while state.rollout.state == "progressing":
                    await _report(context, state)
                    if trouble is None:
                        left_s = max(1, round(deadline - time.monotonic()))
                        # What broke the watch off shows in the next question, or is over.
                        states = _watched(cluster, arguments, context, state, left_s)
                        with contextlib.suppress(ToolError, ValueError):
                            async with contextlib.aclosing(states):
                                async for newer in states:
                                    state = newer
                                    if state.rollout.state != "progressing":
                                        return state.rollout
                                    await _report(context, state)
                    await asyncio.sleep(pause_s)
                    try:
                        document = await self._deployment(cluster, arguments, context)
                        with cluster.parsing():
                            state = _state_of(document)
                    except NotFound:
                        raise
                    except ToolError as error:
                        # Less and less often: this call alone is not to open the circuit for all.
                        trouble, pause_s = error, min(2 * pause_s, _MAX_REOPEN_S)
                    else:
                        trouble, pause_s = None, _REOPEN_S
        rollout = state.rollout
        if trouble is None or rollout.state != "progressing":
            return rollout
        return rollout.model_copy(
            update={"message": f"{rollout.message}, when it was last known; {trouble}"}
        )

    async def _read_clusters(self, _: ToolContext, __: Mapping[str, str]) -> str:
        return json.dumps(
            {
                "clusters": [
                    {"name": name, "default": name == self._clusters.default}
                    for name in self._clusters.names
                ]
            }
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _State:
    """How far a rollout is, in how many replicas that are new, at a version of its deployment."""

    rollout: Rollout
    renewed: int
    version: str


def _state_of(document: Mapping[str, Any]) -> _State:
    version = str(document["metadata"]["resourceVersion"])
    return _State(rollout_of(document), renewed(document), version)


async def _report(context: ToolContext, state: _State) -> None:
    rollout = state.rollout
    if not context.masked.isdisjoint(_TOLD_ON_THE_WAY):
        return
    await context.progress(state.renewed, rollout.desired, rollout.message)


async def _watched(
    cluster: Cluster,
    arguments: DeploymentArguments,
    context: ToolContext,
    state: _State,
    seconds: int,
) -> AsyncGenerator[_State]:
    """Give the states that a deployment takes on after `state`, until the API server ends it."""
    async with cluster.stream(
        "/apis/apps/v1/namespaces/{namespace}/deployments",
        {"namespace": arguments.namespace},
        context,
        what=_what(arguments),
        query={
            "watch": "true",
            "fieldSelector": f"metadata.name={arguments.deployment}",
            "resourceVersion": state.version,
            "timeoutSeconds": str(seconds),
        },
    ) as stream:
        async for line in stream:
            with cluster.parsing():
                event = json.loads(line)
                if event["type"] not in ("ADDED", "MODIFIED"):
                    return
                state = _state_of(event["object"])
            yield state


def _scales(autoscaler: Mapping[str, Any], deployment: str) -> bool:
    target = autoscaler["spec"]["scaleTargetRef"]
    return (target["kind"], target["name"]) == ("Deployment", deployment)


def _names(arguments: DeploymentArguments) -> dict[str, str]:
    return {"namespace": arguments.namespace, "name": arguments.deployment}


def _what(arguments: DeploymentArguments) -> str:
    return f"deployment {arguments.deployment} in namespace {arguments.namespace}"


def _render_rollout(result: Mapping[str, Any]) -> str:
    text = (
        f"{result['state']}: {result['message']} "
        f"(desired {result['desired']}, updated {result['updated']}, ready {result['ready']}, "
        f"available {result['available']})"
    )
    pods = result["pods"]
    if isinstance(pods, dict):
        pods = ", ".join(f"{number} {state}" for state, number in pods.items())
    return f"{text}\npods: {pods}" if pods else text


def _render_scale(result: Mapping[str, Any]) -> str:
    how = "would go" if result["dry_run"] else "goes"
    text = f"{how} from {result['before']} to {result['after']} replicas"
    return f"{text}\nwarning: {result['warning']}" if result["warning"] else text


def _render_restart(result: Mapping[str, Any]) -> str:
    text = f"restarted at {result['restarted_at']}"
    return f"{text}\n{result['state']}: {result['message']}" if result["state"] else text
