"""What a tool of one family may ask about the workloads that another family looks after."""

from __future__ import annotations

from typing import Protocol

from mcp_server.tools.catalog import Result, ToolContext
from mcp_server.tools.validation import TextFormat

__all__ = ["NAMESPACE", "ServiceHealth", "Workload", "Workloads"]

NAMESPACE = TextFormat(
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "must be lower case letters, digits and -, at most 63, a letter or digit first and last, "
    "such as team-a",
)
"""How the name of a namespace is spelled: RFC 1123."""


class Workload(Result):
    """One controller of pods behind a service, such as a Deployment."""

    kind: str
    name: str
    desired: int
    ready: int
    problem: str | None = None
    """Why it is not as desired, in words, or None."""


class ServiceHealth(Result):
    """What the orchestrator knows of a service.

    `endpoints_ready` and `endpoints_not_ready` count addresses behind the Service of that name; None
    when there is no such Service, or when `endpoints_seen` tells that it was not looked for them.
    `unseen` says in words what was not looked at, and why.
    """

    cluster: str
    namespace: str
    workloads: list[Workload]
    endpoints_ready: int | None
    endpoints_not_ready: int | None
    endpoints_seen: bool = True
    unseen: tuple[str, ...] = ()


class Workloads(Protocol):
    """Knows the workloads of clusters."""

    @property
    def default_cluster(self) -> str:
        """The name of the cluster that is meant where none is named."""

    def metrics_cluster(self, cluster: str | None, context: ToolContext) -> str:
        """Return what the label `cluster` of a cluster's metrics and alerts says where they have one.

        Args:
            cluster: a configured cluster, or None for the default one.

        Raises:
            InvalidArguments: there is no such cluster.
        """

    async def service_health(
        self, context: ToolContext, *, cluster: str | None, namespace: str, service: str
    ) -> ServiceHealth:
        """Return what is known of `service`: its Service, and the workloads of its name or selector.

        Args:
            cluster: a configured cluster, or None for the default one.

        Raises:
            InvalidArguments: there is no such cluster; BackendUnavailable: it does not answer.
        """
