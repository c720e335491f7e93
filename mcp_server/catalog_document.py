"""The policy's catalogue: what Rego must know of each tool and resource.

Generated from the declarations, so that a tool and what the policy believes of it cannot differ; a
test compares the generated document with the committed `policies/config/catalog/data.yaml`.
"""

from __future__ import annotations

from typing import Any

from mcp_server.settings import MonitoringSettings
from mcp_server.tools.catalog import Catalog, Tool
from mcp_server.tools.cmdb.family import Cmdb
from mcp_server.tools.documents import Document
from mcp_server.tools.monitoring import Monitoring

__all__ = ["catalog_document"]


def catalog_document() -> dict[str, Any]:
    """Return the catalogue of every tool and resource this version can serve."""
    families = _families()
    catalog = Catalog(tool for family in families for tool in family.tools())
    return {
        "tools": {tool.name: _tool(tool) for tool in catalog},
        "resources": {
            document.uri: _document(document)
            for family in families
            if isinstance(family, Cmdb)
            for document in family.resources()
        },
        "prompts": {},
    }


def _families() -> list[Monitoring | Cmdb]:
    """Return every family, unconnected: declarations need no backend."""
    nowhere = MonitoringSettings.model_validate(
        {"prometheus_url": "https://invalid.", "alertmanager_url": "https://invalid."}
    )
    return [Monitoring(nowhere), Cmdb(_NoBackend())]


class _NoBackend:
    """A backend for declarations that are only read."""

    async def query_assets(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a declaration asked its backend")


def _tool(tool: Tool[Any, Any]) -> dict[str, Any]:
    return {
        "wire": tool.wire_name,
        "family": tool.family,
        "permission": tool.permission,
        "read_only": tool.read_only,
        "destructive": tool.destructive,
        "scope": {
            "namespace": tool.scope.namespace,
            "cluster": tool.scope.cluster,
            "asset": tool.scope.asset,
        },
    }


def _document(document: Document) -> dict[str, Any]:
    return {
        "family": document.family,
        "permission": document.permission,
        "read_only": True,
        "destructive": False,
        "scope": {"namespace": None, "cluster": None, "asset": None},
    }
