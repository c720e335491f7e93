"""Interface through which tools of other families read the health of workloads."""

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
"""Format of the name of a namespace: RFC 1123."""


class Workload(Result):
    """One controller of pods behind a service, such as a Deployment."""

    kind: str
    name: str
    desired: int
    ready: int
    problem: str | None = None
    """Why it is not in the desired state, in words, or None."""


class ServiceHealth(Result):
    """The health of a service, as its cluster reports it.

    `endpoints_ready` and `endpoints_not_ready` count the endpoints of the Service; None if there is no
    such Service, or if `endpoints_checked` is false. `not_checked` says in words what was not checked,
    and why.
    """

    cluster: str
    namespace: str
    workloads: list[Workload]
    endpoints_ready: int | None
    endpoints_not_ready: int | None
    endpoints_checked: bool = True
    not_checked: tuple[str, ...] = ()


class Workloads(Protocol):
    """The workloads of all clusters."""

    @property
    def default_cluster(self) -> str:
        """The name of the default cluster."""

    def metrics_cluster(self, cluster: str | None, context: ToolContext) -> str:
        """Return the value of the label `cluster` in the metrics and alerts of a cluster.

        Args:
            cluster: a configured cluster, or None for the default one.

        Raises:
            InvalidArguments: there is no such cluster.
        """

    async def service_health(
        self, context: ToolContext, *, cluster: str | None, namespace: str, service: str
    ) -> ServiceHealth:
        """Return the health of a service: of its Service, and of workloads with its name or selector.

        Args:
            cluster: a configured cluster, or None for the default one.

        Raises:
            InvalidArguments: there is no such cluster; BackendUnavailable: it does not answer.
        """
