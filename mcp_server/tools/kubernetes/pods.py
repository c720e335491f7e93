"""The tool `k8s:get_pods`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mcp_server.tools.catalog import ListResult, Result
from mcp_server.tools.kubernetes.arguments import SelectableListArguments
from mcp_server.tools.kubernetes.lists import ListedKind, TableRow

__all__ = ["PODS", "PodArguments", "pod_of"]


class PodArguments(SelectableListArguments):
    """Arguments of `get_pods`."""

    field_selector: Annotated[
        str | None,
        Field(
            description="By fields that the API server can select by",
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


def pod_of(row: TableRow) -> Pod:
    """Return the pod of a table row."""
    cells = row.cells
    return Pod.model_construct(
        name=cells["Name"],
        namespace=row.namespace,
        status=cells["Status"],
        ready=cells["Ready"],
        # A number, or a text such as `4 (2m ago)`.
        restarts=int(str(cells["Restarts"]).partition(" ")[0]),
        age=cells["Age"],
        node=None if cells["Node"] == "<none>" else cells["Node"],
    )


PODS = ListedKind(
    plural="pods",
    api="/api/v1",
    title="Get pods",
    description="List pods with their true state, readiness, restarts, age and node.",
    arguments=PodArguments,
    result=Pods,
    row_of=pod_of,
)
