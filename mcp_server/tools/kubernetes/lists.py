"""Tools that list the objects of one kind, such as `k8s:get_pods`: one implementation for all kinds.

The API server prints the objects as a table, as it does for kubectl: how the state of a pod follows from
its phase, conditions and containers differs between versions, and each cluster knows its own. For one
namespace, the table has a tenth of the bytes of the objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

from mcp_server.tools.catalog import ListResult, Result, Tool, ToolContext
from mcp_server.tools.cursor import CursorCipher, fingerprint
from mcp_server.tools.kubernetes.arguments import (
    CLUSTER_WIDE,
    IN_NAMESPACES,
    ClusterListArguments,
    NamespacedListArguments,
)
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.paging import Page, Position

__all__ = ["TABLE", "ListedKind", "TableRow", "list_tool", "rows_of_table"]

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
"""Accept header with which the API server prints objects as it does for kubectl."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One object of a printed table.

    Attributes:
        cells: values by column name, such as `Ready`.
        namespace: namespace of the object; empty for objects in no namespace.
        object: the object as far as `ListedKind.include_object` requests it.
    """

    cells: Mapping[str, Any]
    namespace: str
    object: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ListedKind:
    """One kind of objects and its tool `k8s:get_PLURAL`.

    Attributes:
        plural: name in the path of the API and of the result's field with the rows.
        api: path of the API group.
        result: has a field `plural` with the rows.
        row_of: makes a row of the result.
        columns: fields of a row that the text shows; by default all.
        include_object: what `row_of` needs of the object itself.
    """

    plural: str
    api: str
    title: str
    description: str
    arguments: type[NamespacedListArguments | ClusterListArguments]
    result: type[ListResult]
    row_of: Callable[[TableRow], Result]
    columns: tuple[str, ...] = ()
    include_object: Literal["Metadata", "Object"] = "Metadata"
    revealed_by: Mapping[str, Iterable[str]] = field(default_factory=dict)


def list_tool(kind: ListedKind, clusters: Clusters, cipher: CursorCipher) -> Tool[Any, Any]:
    """Return the declaration of the tool that lists a kind."""
    namespaced = issubclass(kind.arguments, NamespacedListArguments)
    (row,) = get_args(kind.result.model_fields[kind.plural].annotation)
    tool: Tool[Any, Any] = Tool(
        name=f"k8s:get_{kind.plural}",
        title=kind.title,
        description=kind.description,
        permission="k8s:get",
        arguments=kind.arguments,
        result=kind.result,
        run=partial(_list, kind, clusters, cipher),
        read_only=True,
        source="Kubernetes",
        rows=kind.plural,
        columns=kind.columns or tuple(row.model_fields),
        revealed_by=kind.revealed_by,
        scope=IN_NAMESPACES if namespaced else CLUSTER_WIDE,
        canonicalize=clusters.with_default_cluster,
    )
    return tool


async def _list(
    kind: ListedKind,
    clusters: Clusters,
    cipher: CursorCipher,
    arguments: Any,
    context: ToolContext,
) -> ListResult:
    cluster = clusters.find(arguments.cluster, context)
    namespace = arguments.selected_namespace
    selectors = {
        "labelSelector": arguments.label_selector or "",
        "fieldSelector": arguments.field_selector or "",
    }
    query = fingerprint(kind.plural, cluster.name, namespace, *selectors.values())
    limit = context.at_most(arguments.limit)
    if arguments.cursor is None:
        position = Position(query=query, size=limit)
    else:
        position = Position.decode(cipher, arguments.cursor, query).resized(limit)
    # For one namespace, the metadata of the objects would add nothing.
    with_metadata = kind.include_object == "Object" or namespace is None
    table = await cluster.get(
        f"{kind.api}/namespaces/{{namespace}}/{kind.plural}"
        if namespace
        else f"{kind.api}/{kind.plural}",
        {"namespace": namespace} if namespace else {},
        context,
        what=_title(kind, namespace),
        query={
            **position.parameters(),
            "includeObject": kind.include_object if with_metadata else "None",
            **{name: value for name, value in selectors.items() if value},
        },
        accept=TABLE,
    )
    with cluster.parsing():
        rows = [kind.row_of(row) for row in rows_of_table(table, namespace)]
        page = Page(position, table["metadata"], len(rows), limit=limit, cipher=cipher)
    return kind.result.model_validate(
        {kind.plural: rows[page.shown], **page.summary()}
    ).with_cursor(page.cursor_after)


def rows_of_table(table: Mapping[str, Any], namespace: str | None) -> Iterable[TableRow]:
    """Yield the rows of a table that the API server printed.

    Args:
        namespace: namespace of all objects; None: each row's object names its own.
    """
    names = [column["name"] for column in table["columnDefinitions"]]
    for row in table["rows"]:
        found = row.get("object") or {}
        yield TableRow(
            cells=dict(zip(names, row["cells"], strict=True)),
            namespace=namespace or found["metadata"].get("namespace", ""),
            object=found,
        )


def _title(kind: ListedKind, namespace: str | None) -> str:
    if not issubclass(kind.arguments, NamespacedListArguments):
        return f"list of {kind.plural}"
    return f"{kind.plural} of " + (f"namespace {namespace}" if namespace else "all namespaces")
