"""The tool `cmdb:get_service_topology`, and the topology that the resource shares with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from mcp_server.tools.catalog import Arguments, Result, Tool, ToolContext
from mcp_server.tools.cmdb.arguments import SOURCE, ServiceName
from mcp_server.tools.cmdb.backend import CmdbBackend
from mcp_server.tools.cmdb.mermaid import mermaid
from mcp_server.tools.cmdb.model import Direction, Edge, Node, Topology
from mcp_server.tools.offload import offload
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES, sent_bytes

__all__ = ["REVEALED_BY", "TopologyResult", "service_topology", "topology_that_fits"]

_MAX_NODES = 500
# The rest is for the marks around the text and the punctuation of the response.
_BUDGET_BYTES = RESULT_BUDGET_BYTES - 1024

REVEALED_BY = {"id": ("from", "to"), "nodes": ("edges",)}
"""Relations name the assets of a topology by their ids."""


class TopologyArguments(Arguments):
    """Arguments of `get_service_topology`."""

    service_name: ServiceName
    direction: Annotated[
        Literal["down", "up", "both"],
        Field(description="down: what it needs; up: what needs it"),
    ] = "both"
    depth: Annotated[int, Field(ge=1, le=20, description="Maximum relations from the service")] = 3
    max_nodes: Annotated[
        int, Field(description="Maximum assets, nearest first", ge=1, le=_MAX_NODES)
    ] = 100


class TopologyResult(Result):
    """The assets around a service, nearest first."""

    model_config = ConfigDict(serialize_by_alias=True)

    nodes: list[Node]
    edges: list[Edge]
    total: int | None
    """Number of all nodes; None: more than 10,000."""
    truncated: bool
    more: str | None
    """How to get more, if it is truncated."""


def service_topology(backend: CmdbBackend) -> Tool[TopologyArguments, TopologyResult]:
    """Return the declaration of `cmdb:get_service_topology`."""
    return Tool(
        name="cmdb:get_service_topology",
        title="Service topology",
        description="Find and draw the dependencies around a service.",
        permission="tools:read",
        arguments=TopologyArguments,
        result=TopologyResult,
        run=partial(_run, backend),
        render=_render,
        revealed_by=REVEALED_BY,
        read_only=True,
        source=SOURCE,
    )


async def _run(
    backend: CmdbBackend, arguments: TopologyArguments, context: ToolContext
) -> TopologyResult:
    topology = await backend.get_topology(
        context.tenant,
        arguments.service_name,
        direction=Direction(arguments.direction),
        depth=arguments.depth,
        most_nodes=context.at_most(arguments.max_nodes),
    )
    # Each attempt renders the whole topology.
    size = 10 * (len(topology.nodes) + len(topology.edges))
    return await offload(
        size, topology_that_fits, topology, _fits_response, requested=arguments.max_nodes
    )


def topology_that_fits(
    topology: Topology, fits: Callable[[TopologyResult], bool], *, requested: int | None
) -> TopologyResult:
    """Return the result with as many nodes, nearest first, as `fits` accepts.

    Args:
        requested: number of nodes that the caller requested; None: the caller could not choose.
    """
    whole = _result(topology, len(topology.nodes), requested)
    if fits(whole):
        return whole
    low, high = 0, len(topology.nodes) - 1
    while low < high:
        middle = (low + high + 1) // 2
        fit = fits(_result(topology, middle, requested))
        low, high = (middle, high) if fit else (low, middle - 1)
    return _result(topology, low, requested)


def _result(topology: Topology, count: int, requested: int | None) -> TopologyResult:
    nodes = topology.nodes[:count]
    truncated = topology.total != len(nodes)
    ids = {node.id for node in nodes}
    return TopologyResult(
        nodes=list(nodes),
        edges=[edge for edge in topology.edges if edge.origin in ids and edge.target in ids],
        total=topology.total,
        truncated=truncated,
        more=_how_to_get_more(len(nodes), requested) if truncated else None,
    )


def _fits_response(result: TopologyResult) -> bool:
    document = result.model_dump(mode="json")
    return sent_bytes(document, _render(document)) <= _BUDGET_BYTES


def _how_to_get_more(shown: int, requested: int | None) -> str:
    """Return what a caller can do to get more nodes.

    If fewer nodes are shown than requested, the byte budget or the policy is the limit: requesting more
    would not help.
    """
    if requested is None:
        return "cmdb_get_service_topology shows more, and what is further away"
    can_raise = shown == requested < _MAX_NODES
    raised = f"raise max_nodes (at most {_MAX_NODES}), or " if can_raise else ""
    return (
        f"{raised}go on from an outer asset: its id as service_name; less depth or one direction "
        "finds fewer"
    )


def _render(document: Mapping[str, Any]) -> str:
    nodes, edges, total = document["nodes"], document["edges"], document["total"]
    if not isinstance(nodes, list):
        return f"nodes: {nodes}"
    drawn = edges if isinstance(edges, list) else []
    text = f"```mermaid\n{mermaid(nodes, drawn)}\n```"
    if document["truncated"] is True:
        of = "more than 10000" if total is None else total
        text += f"\nThe nearest {len(nodes)} of {of} assets; {document['more']}."
    return text
