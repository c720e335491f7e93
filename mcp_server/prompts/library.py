"""The prompts of this server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from mcp_server.prompts.declaration import FromTemplate, FromTool, Prompt, PromptArguments, Step
from mcp_server.tools.cmdb.arguments import AssetId, ServiceName, TimeRange
from mcp_server.tools.kubernetes.arguments import ClusterName, DeploymentName, Namespace
from mcp_server.tools.monitoring.health_check import NAMING_LABELS

__all__ = ["PROMPTS"]


class TriageAlertArguments(PromptArguments):
    """Arguments of `triage_alert`."""

    alert: str = Field(min_length=1, max_length=253, description="Name of the alert")
    severity: Literal["critical", "warning", "info"] | None = Field(
        default=None, description="Only alerts of this severity"
    )
    service: ServiceName | None = Field(
        default=None, description="The service concerned, where known"
    )


class ReviewRolloutArguments(PromptArguments):
    """Arguments of `review_rollout`."""

    deployment: DeploymentName
    namespace: Namespace = "default"
    cluster: ClusterName = None


class ExplainDependenciesArguments(PromptArguments):
    """Arguments of `explain_dependencies`."""

    service: ServiceName = Field(description="Name or id of the service in the CMDB")


class ReviewAssetArguments(PromptArguments):
    """Arguments of `review_asset`."""

    asset_id: AssetId
    time_range: TimeRange = Field(default="7d", description="How far to look back: 24h, 7d")


def _alerts_of(known: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of `get_alerts` for the known arguments of `triage_alert`."""
    severity, alert = known.get("severity"), known.get("alert")
    return {
        **({} if severity is None else {"severity": severity}),
        **(
            {}
            if alert is None
            else {"matchers": [f"alertname={json.dumps(alert, ensure_ascii=False)}"]}
        ),
    }


def _services_in(alert: Mapping[str, Any]) -> list[str]:
    """Return the names of services in an alert's labels; none if the policy masks the labels."""
    labels = alert["labels"]
    if not isinstance(labels, dict):
        return []
    return [labels[name] for name in NAMING_LABELS if name in labels]


def _place_of(known: Mapping[str, str]) -> dict[str, Any]:
    return {name: known[name] for name in ("cluster", "namespace") if name in known}


_NAMESPACES = "enterprise://k8s/{cluster}/namespaces"
_ASSET_ID = FromTemplate("enterprise://cmdb/assets/{id}", "id")
_ALERT = FromTool("monitoring:get_alerts", lambda alert: [alert["name"]], _alerts_of)
_SERVICE = FromTool("monitoring:get_alerts", _services_in, _alerts_of)
_DEPLOYMENT = FromTool("k8s:get_deployments", lambda deployment: [deployment["name"]], _place_of)

PROMPTS: tuple[Prompt, ...] = (
    Prompt(
        name="triage_alert",
        title="Triage an alert",
        description="Find out what a firing alert means, how bad it is and what to do first.",
        permission="tools:read",
        arguments=TriageAlertArguments,
        task="Triage a firing alert for the operator on duty.",
        steps=(
            Step(
                "monitoring:get_alerts",
                "find the alert; since when, on how many instances, what else fires with it.",
                required=True,
            ),
            Step(
                "monitoring:query_metrics",
                "look at the metric behind the alert over the last hours: sudden, or growing?",
            ),
            Step("monitoring:health_check", "the verdict on the service concerned."),
            Step("k8s:get_pods", "pods that restart or are not ready."),
            Step("k8s:get_events", "warnings since shortly before the alert began."),
            Step("cmdb:get_service_topology", "who depends on the service: how far it reaches."),
            Step("cmdb:get_change_records", "what was changed shortly before."),
        ),
        result="Answer with: severity and reach; the likely cause with the evidence for it and against "
        "it; the first action; what you could not find out.",
        completed_from={"alert": _ALERT, "service": _SERVICE},
    ),
    Prompt(
        name="review_rollout",
        title="Review a rollout",
        description="Judge whether a deployment's rollout is healthy, stuck or to be taken back.",
        permission="tools:read",
        arguments=ReviewRolloutArguments,
        task="Review the rollout of a deployment and say whether it is healthy.",
        steps=(
            Step(
                "k8s:get_deployments",
                "desired, ready and available replicas, the image.",
                required=True,
            ),
            Step("k8s:get_rollout_status", "how far the rollout is, and what it waits for."),
            Step("k8s:get_pods", "the state and the restarts of the new pods."),
            Step("k8s:get_events", "scheduling, image and probe failures."),
            Step(
                "k8s:get_pod_logs", "the last lines of a pod that fails, and of its previous run."
            ),
            Step("monitoring:query_metrics", "errors and latency before and after."),
        ),
        result="Answer with one of: healthy, in progress, stuck, failing; then the evidence, the cause "
        "if something is wrong, and whether to wait, mend or take it back.",
        completed_from={
            "cluster": FromTemplate(_NAMESPACES, "cluster"),
            "namespace": FromTemplate(_NAMESPACES, "namespace"),
            "deployment": _DEPLOYMENT,
        },
    ),
    Prompt(
        name="explain_dependencies",
        title="Explain a service's dependencies",
        description="Explain what a service needs and who needs it, with the weak places.",
        permission="tools:read",
        arguments=ExplainDependenciesArguments,
        task="Explain the dependencies of a service to somebody who is new to it.",
        steps=(
            Step(
                "cmdb:get_service_topology",
                "what the service needs, and what needs it.",
                required=True,
            ),
            Step("cmdb:query_assets", "owner, environment and status of the assets in it."),
            Step("monitoring:get_alerts", "alerts that fire on any of them now."),
        ),
        result="Answer with: what it needs and why; who is hit when it fails; single points of failure; "
        "assets that are inactive or in maintenance.",
        completed_from={"service": _ASSET_ID},
    ),
    Prompt(
        name="review_asset",
        title="Review an asset's changes",
        description="Tell what was changed on an asset lately, by whom, and whether it went well.",
        permission="tools:read",
        arguments=ReviewAssetArguments,
        task="Review what was changed on an asset lately.",
        steps=(
            Step("cmdb:get_change_records", "the changes in the time range.", required=True),
            Step("cmdb:query_assets", "the asset as it is now."),
            Step("monitoring:get_alerts", "alerts that began after a change."),
        ),
        result="Answer with a timeline of the changes, what each was for, and what looks unfinished.",
        completed_from={"asset_id": _ASSET_ID},
    ),
)
