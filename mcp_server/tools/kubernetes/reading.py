"""What the API server's JSON says, in the words of the tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from mcp_server.redaction import redact_text
from mcp_server.tools.kubernetes.model import Deployment, Pod, Rollout
from mcp_server.tools.text import truncate_middle

__all__ = [
    "age",
    "deployments_of_table",
    "pods_of_table",
    "renewed",
    "rollout_of",
    "selector_text",
]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_MAX_MESSAGE = 1000


def age(created: str | None, now: datetime | None = None) -> str:
    """Return how long ago an RFC 3339 time is, in kubectl's short form: `45s`, `3h12m`, `20d`."""
    if not created:
        return "<unknown>"
    then = datetime.fromisoformat(created)
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    steps: tuple[tuple[int, Callable[[int], str]], ...] = (
        (2 * _MINUTE, lambda s: f"{s}s"),
        (10 * _MINUTE, lambda s: _two(s, _MINUTE, "m", 1, "s")),
        (3 * _HOUR, lambda s: f"{s // _MINUTE}m"),
        (8 * _HOUR, lambda s: _two(s, _HOUR, "h", _MINUTE, "m")),
        (2 * _DAY, lambda s: f"{s // _HOUR}h"),
        (8 * _DAY, lambda s: _two(s, _DAY, "d", _HOUR, "h")),
        (2 * 365 * _DAY, lambda s: f"{s // _DAY}d"),
        (8 * 365 * _DAY, lambda s: _two(s, 365 * _DAY, "y", _DAY, "d")),
    )
    for below, text in steps:
        if seconds < below:
            return text(seconds)
    return f"{seconds // (365 * _DAY)}y"


def _two(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large}{large_name}" + (f"{rest}{small_name}" if rest else "")


def pods_of_table(table: Mapping[str, Any], namespace: str | None) -> list[Pod]:
    """Return the pods of a server-side table.

    The API server prints them as it does for kubectl: how the state of a pod follows from its
    phase, its conditions and its containers differs between versions, and the cluster knows its own.

    Args:
        namespace: theirs; None: each row's object tells.
    """
    columns = {column["name"]: number for number, column in enumerate(table["columnDefinitions"])}

    def pod(row: Mapping[str, Any]) -> Pod:
        cells = row["cells"]
        node = cells[columns["Node"]]
        return Pod.model_construct(
            name=cells[columns["Name"]],
            namespace=namespace or row["object"]["metadata"]["namespace"],
            status=cells[columns["Status"]],
            ready=cells[columns["Ready"]],
            # A number, or a text such as `4 (2m ago)`.
            restarts=int(str(cells[columns["Restarts"]]).partition(" ")[0]),
            age=cells[columns["Age"]],
            node=None if node == "<none>" else node,
        )

    return [pod(row) for row in table["rows"]]


def deployments_of_table(table: Mapping[str, Any], namespace: str | None) -> list[Deployment]:
    """Return the deployments of a server-side table.

    Of one namespace it has a tenth of the bytes that the objects have.

    Args:
        namespace: theirs; None: each row's object tells.
    """
    columns = {column["name"]: number for number, column in enumerate(table["columnDefinitions"])}

    def deployment(row: Mapping[str, Any]) -> Deployment:
        cells = row["cells"]
        ready, _, desired = str(cells[columns["Ready"]]).partition("/")
        return Deployment.model_construct(
            name=cells[columns["Name"]],
            namespace=namespace or row["object"]["metadata"]["namespace"],
            desired=int(desired),
            ready=int(ready),
            available=int(cells[columns["Available"]]),
            image=", ".join(str(cells[columns["Images"]]).split(",")),
            age=cells[columns["Age"]],
        )

    return [deployment(row) for row in table["rows"]]


def rollout_of(document: Mapping[str, Any]) -> Rollout:
    """Return how far a deployment's rollout is, by the rules of `kubectl rollout status`."""
    metadata, spec, status = document["metadata"], document["spec"], document.get("status", {})
    desired = spec.get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    progressing = conditions.get("Progressing", {})
    failure = conditions.get("ReplicaFailure", {})
    state: Literal["complete", "progressing", "paused", "failed"] = "progressing"
    if spec.get("paused"):
        state, message = "paused", "the rollout is paused"
    elif metadata.get("generation", 0) > status.get("observedGeneration", 0):
        message = "the change has not been taken up yet"
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


def renewed(document: Mapping[str, Any]) -> int:
    """Return how many replicas are known to be both of the newest template and available.

    The status counts the available ones of all templates together: the old ones are taken off.
    """
    metadata, status = document["metadata"], document.get("status", {})
    if metadata.get("generation", 0) > status.get("observedGeneration", 0):
        return 0
    updated = status.get("updatedReplicas", 0)
    old = status.get("replicas", 0) - updated
    return int(min(updated, max(0, status.get("availableReplicas", 0) - old)))


def selector_text(selector: Mapping[str, Any]) -> str:
    """Return a LabelSelector object as a label selector of a query; empty where it selects nothing."""
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
