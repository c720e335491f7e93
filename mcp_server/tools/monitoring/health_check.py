"""The tool `monitoring:health_check`.

Every source contributes evidence with a verdict. The verdict of the service is the worst of them; from
worst to best: unhealthy, degraded, unknown, healthy. A service is healthy only if every source answered
and found no problem. A source that could not be queried contributes the verdict unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_server.tools.catalog import (
    Arguments,
    InvalidArguments,
    Result,
    Scope,
    Tool,
    ToolContext,
    ToolError,
)
from mcp_server.tools.gather import gather_or_cancel
from mcp_server.tools.monitoring.alerts import Alert, Alerts
from mcp_server.tools.monitoring.prometheus import Prometheus, TimeSeries
from mcp_server.tools.text import table
from mcp_server.tools.validation import TextFormat
from mcp_server.tools.workloads import NAMESPACE, ServiceHealth, Workload, Workloads

__all__ = [
    "NAMING_LABELS",
    "Evidence",
    "HealthCheckArguments",
    "HealthCheckResult",
    "health_check",
    "worst",
]

Verdict = Literal["healthy", "unknown", "degraded", "unhealthy"]
_FROM_THE_BEST: tuple[Verdict, ...] = ("healthy", "unknown", "degraded", "unhealthy")

NAMING_LABELS = ("service", "job", "app", "deployment", "statefulset", "daemonset")
"""Labels with the name of a service, set by service discovery, exporters and hand-written rules."""

_SOURCES = "Prometheus and Alertmanager"
_MOST_NAMED = 5
# Maximum characters of a text in the table: the message of a failed rollout has its reason at the end.
_LONGEST_SAYING = 500


class HealthCheckArguments(Arguments):
    """Arguments of `health_check`."""

    service: Annotated[
        str,
        Field(
            max_length=253,
            description="Name of its Service, workload or job",
        ),
        TextFormat(
            r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
            "must be letters, digits, ., _ and -, a letter or digit first and last, such as web-1",
        ),
    ]
    namespace: Annotated[str, Field(description="Namespace of the service"), NAMESPACE] = "default"
    cluster: Annotated[
        str | None,
        Field(description="A configured cluster; the default one if omitted", max_length=63),
    ] = None


class Evidence(Result):
    """The verdict of one source about the service."""

    source: str
    verdict: Verdict
    says: str


class HealthCheckResult(Result):
    """The worst verdict of all evidence, and the evidence, worst first."""

    verdict: Verdict
    evidence: list[Evidence]


def worst(evidence: Sequence[Evidence]) -> Verdict:
    """Return the worst verdict of the evidence; unknown if there is no evidence."""
    verdicts = [each.verdict for each in evidence]
    return max(verdicts, key=_FROM_THE_BEST.index, default="unknown")


def health_check(
    prometheus: Prometheus, alerts: Alerts, workloads: Workloads | None = None
) -> Tool[HealthCheckArguments, HealthCheckResult]:
    """Return the declaration of `monitoring:health_check`.

    Args:
        workloads: provides deployments and endpoints; None: no orchestrator is configured.
    """
    return Tool(
        name="monitoring:health_check",
        title="Check health",
        description="Judge a service by workloads, endpoints, scrape targets and alerts.",
        permission="tools:read",
        arguments=HealthCheckArguments,
        result=HealthCheckResult,
        run=partial(_run, prometheus, alerts, workloads),
        render=_render,
        read_only=True,
        source=_SOURCES if workloads is None else f"Kubernetes, {_SOURCES}",
        scope=Scope(namespace="namespace", cluster="cluster"),
        canonicalize=partial(_with_cluster, workloads),
    )


def _with_cluster(
    workloads: Workloads | None, arguments: HealthCheckArguments
) -> HealthCheckArguments:
    if arguments.cluster is not None or workloads is None:
        return arguments
    return arguments.model_copy(update={"cluster": workloads.default_cluster})


async def _run(
    prometheus: Prometheus,
    alerts: Alerts,
    workloads: Workloads | None,
    arguments: HealthCheckArguments,
    context: ToolContext,
) -> HealthCheckResult:
    cluster = _cluster_label(workloads, arguments.cluster, context)
    parts = await gather_or_cancel(
        _workload_evidence(workloads, arguments, context),
        _target_evidence(prometheus, arguments, cluster, context),
        _alert_evidence(alerts, arguments, cluster, context),
    )
    evidence = sorted(
        (each for part in parts for each in part),
        key=lambda each: -_FROM_THE_BEST.index(each.verdict),
    )
    return HealthCheckResult(verdict=worst(evidence), evidence=evidence)


def _cluster_label(
    workloads: Workloads | None, cluster: str | None, context: ToolContext
) -> str | None:
    """Return the value of the label `cluster` for a cluster; None: queries do not use the label.

    Raises:
        InvalidArguments: there is no such cluster.
    """
    if workloads is not None:
        return workloads.metrics_cluster(cluster, context)
    if cluster is not None:
        raise InvalidArguments("cluster: no Kubernetes cluster is connected; leave it out")
    return None


async def _workload_evidence(
    workloads: Workloads | None, arguments: HealthCheckArguments, context: ToolContext
) -> list[Evidence]:
    if workloads is None:
        return [_unknown("workloads", "no Kubernetes cluster is connected")]
    try:
        found = await workloads.service_health(
            context,
            cluster=arguments.cluster,
            namespace=arguments.namespace,
            service=arguments.service,
        )
    except ToolError as error:
        return [_unknown("workloads", str(error))]
    return list(_judged_workloads(found, arguments.service, context))


async def _target_evidence(
    prometheus: Prometheus,
    arguments: HealthCheckArguments,
    cluster: str | None,
    context: ToolContext,
) -> list[Evidence]:
    try:
        answer = await prometheus.query(_up_of(arguments, cluster))
    except ToolError as error:
        return [_unknown("targets", str(error))]
    return [_judged_targets(answer.series, context)]


async def _alert_evidence(
    alerts: Alerts, arguments: HealthCheckArguments, cluster: str | None, context: ToolContext
) -> list[Evidence]:
    try:
        current, unavailable = await alerts.current([])
    except ToolError as error:
        return [_unknown("alerts", str(error))]
    about = [each for each in current if _is_about(each, arguments, cluster)]
    evidence = [_judged_alerts(about, context)]
    if unavailable is not None:
        evidence.append(_unknown("silences", str(unavailable)))
    return evidence


def _unknown(source: str, says: str) -> Evidence:
    return Evidence(source=source, verdict="unknown", says=says)


def _judged_workloads(
    found: ServiceHealth, service: str, context: ToolContext
) -> Iterator[Evidence]:
    masked = context.masked_value
    for reason in found.not_checked:
        yield _unknown("workloads", f"not checked: {reason}")
    if not found.workloads and found.endpoints_ready is None:
        if found.not_checked:
            return
        yield _unknown(
            "workloads",
            f"the cluster {masked(found.cluster, 'cluster')} has no workload and no Service "
            f"called {service} in the namespace {found.namespace}",
        )
        return
    for workload in found.workloads:
        verdict = _verdict_of(workload)
        name = f"{masked(workload.kind, 'kind')} {masked(workload.name, 'name')}"
        ready = f"{masked(workload.ready, 'ready')} of {masked(workload.desired, 'desired')}"
        finding = f"{name}: {ready} ready"
        if workload.problem is not None:
            # The text contains these numbers, as the message of a rollout does.
            problem = masked(
                workload.problem, "message", "ready", "desired", "updated", "available"
            )
            finding += f"; {problem}"
        yield Evidence(source="workloads", verdict=verdict, says=finding)
    if not found.workloads:
        yield _unknown("workloads", f"none behind the Service {service}")
    if not found.endpoints_checked:
        return
    if found.endpoints_ready is None:
        # A workload without clients, such as a queue's worker, needs no Service.
        yield Evidence(source="endpoints", verdict="healthy", says="no Service, so none are needed")
        return
    waiting = found.endpoints_not_ready or 0
    verdict = "degraded" if waiting else "healthy"
    yield Evidence(
        source="endpoints",
        verdict=verdict if found.endpoints_ready else "unhealthy",
        says=f"{found.endpoints_ready} ready, {waiting} not ready",
    )


def _verdict_of(workload: Workload) -> Verdict:
    if workload.desired > 0 and workload.ready == 0:
        return "unhealthy"
    if workload.ready < workload.desired or workload.desired == 0 or workload.problem is not None:
        return "degraded"
    return "healthy"


def _up_of(arguments: HealthCheckArguments, cluster: str | None) -> str:
    """Return PromQL for the scrape targets of a service.

    Targets without a namespace or without a cluster are included.
    """
    # The validated arguments contain neither quotes nor special characters of regular expressions, other
    # than the dot, so they need no escapes.
    here = f'namespace=~"{arguments.namespace}|"'
    chosen = [f'{label}="{arguments.service}",{here}' for label in NAMING_LABELS]
    # The Prometheus operator names the job of a PodMonitor like this.
    chosen.append(f'job="{arguments.namespace}/{arguments.service}"')
    if cluster is not None:
        # The name of a cluster may contain any characters; Prometheus reads the escapes of JSON.
        named = json.dumps(f"{re.escape(cluster)}|", ensure_ascii=False)
        chosen = [f"{each},cluster=~{named}" for each in chosen]
    return " or ".join(f"up{{{each}}}" for each in chosen)


def _judged_targets(series: Sequence[TimeSeries], context: ToolContext) -> Evidence:
    down = [each for each in series if not (each.points and each.points[-1][1] == 1)]
    if not series:
        return _unknown("targets", "no scrape target carries the service's name")
    said = f"{len(series) - len(down)} of {len(series)} up"
    if not down:
        return Evidence(source="targets", verdict="healthy", says=said)
    instances = _named([each.labels.get("instance", "?") for each in down])
    return Evidence(
        source="targets",
        verdict="unhealthy" if len(down) == len(series) else "degraded",
        says=f"{said}; down: {context.masked_value(instances, 'instance', 'labels')}",
    )


def _is_about(alert: Alert, arguments: HealthCheckArguments, cluster: str | None) -> bool:
    labels = alert.labels
    if cluster is not None and labels.get("cluster", cluster) != cluster:
        return False
    if labels.get("job") == f"{arguments.namespace}/{arguments.service}":
        return True
    return labels.get("namespace", arguments.namespace) == arguments.namespace and any(
        labels.get(name) == arguments.service for name in NAMING_LABELS
    )


def _judged_alerts(alerts: Sequence[Alert], context: ToolContext) -> Evidence:
    firing = [each for each in alerts if each.state == "firing"]
    serious = [each for each in firing if each.severity != "info"]
    findings = [
        f"{len(some)} {state}: "
        f"{context.masked_value(_named(sorted({each.name for each in some})), 'name', 'alertname')}"
        for state in ("firing", "pending", "silenced", "inhibited")
        if (some := [each for each in alerts if each.state == state])
    ]
    verdict: Verdict = "healthy"
    if serious:
        critical = any(each.severity == "critical" for each in serious)
        verdict = "unhealthy" if critical else "degraded"
    return Evidence(source="alerts", verdict=verdict, says="; ".join(findings) or "none")


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _render(result: Mapping[str, Any]) -> str:
    evidence = result["evidence"]
    if isinstance(evidence, list):
        evidence = table(evidence, ["source", "verdict", "says"], {"says": _LONGEST_SAYING})
    return f"verdict: {result['verdict']}\n{evidence}"
