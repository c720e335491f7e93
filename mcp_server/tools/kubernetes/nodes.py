"""The tool `k8s:get_nodes`."""

from __future__ import annotations

from mcp_server.tools.catalog import ListResult, Result
from mcp_server.tools.kubernetes.arguments import ClusterListArguments
from mcp_server.tools.kubernetes.lists import ListedKind, TableRow

__all__ = ["NODES"]


class Node(Result):
    """One node; `conditions` has problems only, and `taints` are formatted as by kubectl."""

    name: str
    status: str
    conditions: list[str]
    roles: str
    version: str
    capacity: dict[str, str]
    allocatable: dict[str, str]
    taints: list[str]
    unschedulable: bool
    age: str


class Nodes(ListResult):
    """One page of nodes."""

    nodes: list[Node]


def _node_of(row: TableRow) -> Node:
    cells, spec, status = row.cells, row.object["spec"], row.object["status"]
    return Node(
        name=cells["Name"],
        status=cells["Status"],
        # Ready is True on a healthy node; all other conditions are problems.
        conditions=[
            f"{each['type']}={each['status']} ({each.get('reason') or 'no reason'})"
            for each in status.get("conditions") or ()
            if (each["status"] == "True") != (each["type"] == "Ready")
        ],
        roles=cells["Roles"],
        version=cells["Version"],
        capacity=status.get("capacity") or {},
        allocatable=status.get("allocatable") or {},
        taints=[
            f"{each['key']}={each.get('value', '')}:{each['effect']}".replace("=:", ":")
            for each in spec.get("taints") or ()
        ],
        unschedulable=bool(spec.get("unschedulable")),
        age=cells["Age"],
    )


NODES = ListedKind(
    plural="nodes",
    api="/api/v1",
    title="Get nodes",
    description="List nodes with their state, problems, resources and taints.",
    arguments=ClusterListArguments,
    result=Nodes,
    row_of=_node_of,
    columns=("name", "status", "conditions", "roles", "version", "allocatable", "taints", "age"),
    include_object="Object",
    # kubectl's status contains SchedulingDisabled and the condition Ready; cordoning adds a taint.
    revealed_by={
        "unschedulable": ("status", "taints"),
        "conditions": ("status", "taints"),
        "status": ("conditions", "unschedulable", "taints"),
        "taints": ("unschedulable",),
    },
)
