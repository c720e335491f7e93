"""Types of arguments that several Kubernetes tools share."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from mcp_server.tools.catalog import Arguments, ListArguments, Scope
from mcp_server.tools.validation import TextFormat
from mcp_server.tools.workloads import NAMESPACE

__all__ = [
    "CLUSTER_WIDE",
    "IN_NAMESPACES",
    "IN_ONE_NAMESPACE",
    "ClusterListArguments",
    "ClusterName",
    "DeploymentArguments",
    "DeploymentName",
    "FieldSelector",
    "LabelSelector",
    "Name",
    "Namespace",
    "NamespacedListArguments",
    "SelectableListArguments",
]

# RFC 1123, as the API server accepts it: no name can be part of a path.
Name = Annotated[
    str,
    TextFormat(
        r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        "must be lower case letters, digits, - and ., at most 253, a letter or digit first and "
        "last, such as web-1",
    ),
]
# The server's instructions describe these once for all tools: `mcp_server.transports.mcp`.
ClusterName = Annotated[
    str | None, Field(description="A configured cluster; the default one if omitted", max_length=63)
]
Namespace = Annotated[str, Field(description="Name of a namespace"), NAMESPACE]
DeploymentName = Annotated[Name, Field(description="Name of a deployment")]
LabelSelector = Annotated[
    str | None,
    Field(
        description="As for kubectl: =, !=, in, notin, comma-separated",
        max_length=1024,
        examples=["app=web,tier!=db"],
    ),
]

FieldSelector = Annotated[
    str | None,
    Field(
        description="By fields that the API server can select by",
        max_length=1024,
        examples=["metadata.name=web"],
    ),
]

IN_ONE_NAMESPACE = Scope(namespace="namespace", cluster="cluster")
IN_NAMESPACES = Scope(namespace="namespace", cluster="cluster", all_namespaces="all_namespaces")
CLUSTER_WIDE = Scope(cluster="cluster", cluster_wide=True)


class NamespacedListArguments(ListArguments):
    """Base class of the arguments of lists of objects in namespaces."""

    cluster: ClusterName = None
    namespace: Namespace = "default"
    all_namespaces: Annotated[bool, Field(description="All namespaces instead of one")] = False

    @model_validator(mode="after")
    def _check_namespace(self) -> Self:
        if self.all_namespaces and "namespace" in self.model_fields_set:
            raise ValueError("name a namespace or set all_namespaces, not both")
        return self

    @property
    def selected_namespace(self) -> str | None:
        """The namespace; None for all of them."""
        return None if self.all_namespaces else self.namespace


class SelectableListArguments(NamespacedListArguments):
    """Base class of the arguments of lists that the API server filters by selectors."""

    label_selector: LabelSelector = None
    field_selector: FieldSelector = None


class ClusterListArguments(ListArguments):
    """Arguments of lists of objects that are in no namespace."""

    cluster: ClusterName = None
    label_selector: LabelSelector = None
    field_selector: FieldSelector = None

    @property
    def selected_namespace(self) -> None:
        """None: the objects are in no namespace."""


class DeploymentArguments(Arguments):
    """Arguments that name one deployment."""

    cluster: ClusterName = None
    namespace: Namespace = "default"
    deployment: DeploymentName
