"""What the Kubernetes tools take and return."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mcp_server.tools.catalog import Arguments, ListArguments, ListResult, Result
from mcp_server.tools.schemas import brief
from mcp_server.tools.validation import TextFormat
from mcp_server.tools.workloads import NAMESPACE

__all__ = [
    "Deployment",
    "DeploymentArguments",
    "Deployments",
    "Event",
    "EventArguments",
    "Events",
    "ListDeploymentsArguments",
    "ListPodsArguments",
    "Listing",
    "LogArguments",
    "Logs",
    "Pod",
    "Pods",
    "Restart",
    "RestartArguments",
    "Rollout",
    "Scale",
    "ScaleArguments",
]

# RFC 1123: what the API server accepts as a name, so that no name can be a path.
_NAME = TextFormat(
    r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
    "must be lower case letters, digits, - and ., at most 253, a letter or digit first and last, "
    "such as web-1",
)
Name = Annotated[str, _NAME]
# What these mean is told once, in the server's instructions: see `mcp_server.transports.mcp`.
ClusterName = Annotated[
    str | None, brief("A configured cluster; the main one if left out", max_length=63)
]
Namespace = Annotated[str, brief("Name of a namespace"), NAMESPACE]
DeploymentName = Annotated[Name, brief("Name of a deployment")]
LabelSelector = Annotated[
    str | None,
    brief(
        "As of kubectl: =, !=, in, notin, joined by commas",
        max_length=1024,
        examples=["app=web,tier!=db"],
    ),
]
Kind = Annotated[
    str,
    TextFormat(
        r"^[A-Za-z][A-Za-z0-9-]{0,62}$",
        "must be a kind, its plural or its short name, such as Pod",
    ),
]
_ONE_PLACE = "name a namespace or set all_namespaces, not both"


class Listing(ListArguments):
    """Arguments of every list of this family."""

    cluster: ClusterName = None
    namespace: Namespace = "default"
    all_namespaces: Annotated[bool, brief("Of all namespaces, instead of one")] = False

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if self.all_namespaces and "namespace" in self.model_fields_set:
            raise ValueError(_ONE_PLACE)
        return self

    @property
    def place(self) -> str | None:
        """The namespace; None: all of them."""
        return None if self.all_namespaces else self.namespace


class ListPodsArguments(Listing):
    """Arguments of `get_pods`."""

    label_selector: LabelSelector = None
    field_selector: Annotated[
        str | None,
        brief(
            "By fields that the API server knows of pods",
            max_length=1024,
            examples=["spec.nodeName=n1,status.phase=Failed"],
        ),
    ] = None


class Pod(Result):
    """One pod, as kubectl shows it."""

    name: str
    namespace: str
    status: str
    ready: str
    restarts: int
    age: str
    node: str | None


class Pods(ListResult):
    """One page of pods."""

    pods: list[Pod]


class ListDeploymentsArguments(Listing):
    """Arguments of `get_deployments`."""

    label_selector: LabelSelector = None
    field_selector: Annotated[
        str | None,
        brief(
            "By fields that the API server knows of deployments",
            max_length=1024,
            examples=["metadata.name=web"],
        ),
    ] = None


class Deployment(Result):
    """One deployment; its numbers are of replicas."""

    name: str
    namespace: str
    desired: int
    ready: int
    available: int
    image: str
    age: str


class Deployments(ListResult):
    """One page of deployments."""

    deployments: list[Deployment]


class EventArguments(Listing):
    """Arguments of `get_events`."""

    kind: Annotated[Kind | None, Field(description="Of the object", examples=["Pod", "po"])] = None
    name: Annotated[Name | None, Field(description="Of the object")] = None
    type: Annotated[Literal["Warning", "Normal"] | None, brief("Only events of this type")] = None


class Event(Result):
    """What happened to an object, and how often; `age` is since it happened last."""

    age: str
    type: str
    reason: str
    object: str
    namespace: str
    count: int
    message: str


class Events(ListResult):
    """Events, the newest first; `note` tells where not all of them were looked at."""

    events: list[Event]
    note: str | None = None


class DeploymentArguments(Arguments):
    """Arguments that name one deployment."""

    cluster: ClusterName = None
    namespace: Namespace = "default"
    deployment: DeploymentName


class Rollout(Result):
    """How far the current change of a deployment is.

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


class ScaleArguments(DeploymentArguments):
    """Arguments of `scale_deployment`."""

    replicas: Annotated[int, brief("How many there are to be", ge=0, le=2**31 - 1)]
    expected_current_replicas: Annotated[
        int | None, Field(ge=0, description="Refuse if not so many now")
    ] = None
    dry_run: Annotated[bool, Field(description="Judge it, change nothing")] = False


class Scale(Result):
    """What was scaled."""

    before: int
    after: int
    dry_run: bool
    warning: str | None


class RestartArguments(DeploymentArguments):
    """Arguments of `restart_deployment`."""

    wait_s: Annotated[int, Field(ge=0, le=60, description="Wait for the rollout")] = 0


class Restart(Result):
    """A restart that was started; `state` and `message` of its rollout where it was waited for."""

    restarted_at: str
    state: str | None
    message: str | None


class LogArguments(Arguments):
    """Arguments of `get_pod_logs`."""

    cluster: ClusterName = None
    namespace: Namespace = "default"
    pod_name: Annotated[Name, brief("Name of a pod")]
    container: Annotated[Name | None, Field(description="Needed if there are several")] = None
    previous: Annotated[bool, Field(description="Before its restart")] = False
    since_seconds: Annotated[int | None, Field(ge=1, le=30 * 86400, description="How far back")] = (
        None
    )
    tail_lines: Annotated[
        int, Field(ge=1, le=2000, description="The newest; with grep, of those found")
    ] = 100
    grep: Annotated[
        str | None,
        Field(min_length=1, max_length=256, description="Only lines with this text, in any case"),
    ] = None


class Logs(Result):
    """The end of a container's log; `note` tells what is missing of what was asked for."""

    lines: int
    note: str | None
    text: str
