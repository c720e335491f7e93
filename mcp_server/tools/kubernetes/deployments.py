"""The tool `k8s:get_deployments`, and what the tools about one deployment share."""

from __future__ import annotations

from typing import Any

from mcp_server.tools.catalog import ListResult, Result, ToolContext
from mcp_server.tools.kubernetes.arguments import (
    DeploymentArguments,
    SelectableListArguments,
)
from mcp_server.tools.kubernetes.cluster import Cluster
from mcp_server.tools.kubernetes.lists import ListedKind, TableRow

__all__ = ["DEPLOYMENT", "DEPLOYMENTS", "path_parameters", "read_deployment", "title_of"]

DEPLOYMENT = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"


class Deployment(Result):
    """One deployment; its numbers count replicas."""

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


def _deployment_of(row: TableRow) -> Deployment:
    cells = row.cells
    ready, _, desired = str(cells["Ready"]).partition("/")
    return Deployment.model_construct(
        name=cells["Name"],
        namespace=row.namespace,
        desired=int(desired),
        ready=int(ready),
        available=int(cells["Available"]),
        image=", ".join(str(cells["Images"]).split(",")),
        age=cells["Age"],
    )


DEPLOYMENTS = ListedKind(
    plural="deployments",
    api="/apis/apps/v1",
    title="Get deployments",
    description="List deployments with their replicas and images.",
    arguments=SelectableListArguments,
    result=Deployments,
    row_of=_deployment_of,
)


async def read_deployment(
    cluster: Cluster, arguments: DeploymentArguments, context: ToolContext
) -> dict[str, Any]:
    """Return the object of the deployment that the arguments name; raises as `Cluster.get`."""
    return await cluster.get(
        DEPLOYMENT, path_parameters(arguments), context, what=title_of(arguments)
    )


def path_parameters(arguments: DeploymentArguments) -> dict[str, str]:
    """Return the parameters of the path `DEPLOYMENT`."""
    return {"namespace": arguments.namespace, "name": arguments.deployment}


def title_of(arguments: DeploymentArguments) -> str:
    """Return how error messages name the deployment."""
    return f"deployment {arguments.deployment} in namespace {arguments.namespace}"
