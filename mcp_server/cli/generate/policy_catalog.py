"""The policy's catalogue: the facts about each tool, resource and prompt that the policy needs.

It is generated from the declarations, so that the policy and the tools cannot disagree. A test compares
the generated document with the committed `policies/config/catalog/data.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Protocol, cast, runtime_checkable

from mcp_server.gate import Caller
from mcp_server.gate.entitlements import policy_me
from mcp_server.gate.resource_reads import Resources
from mcp_server.prompts import PROMPTS, Prompt, Prompts
from mcp_server.settings import KubernetesSettings, MonitoringSettings
from mcp_server.tools.catalog import Catalog, Scope, Tool
from mcp_server.tools.cmdb.backend import CmdbBackend
from mcp_server.tools.cmdb.family import Cmdb
from mcp_server.tools.kubernetes.family import Kubernetes
from mcp_server.tools.monitoring.family import Monitoring
from mcp_server.tools.resources import Resource

__all__ = ["catalog_of", "every_prompt", "every_resource", "every_tool", "policy_catalog"]


def policy_catalog() -> dict[str, Any]:
    """Return the catalogue of all tools, resources and prompts of this version."""
    return catalog_of(every_tool(), every_resource(), every_prompt())


def catalog_of(
    tools: Iterable[Tool[Any, Any]],
    resources: Iterable[Resource] = (),
    prompts: Iterable[Prompt] = (),
) -> dict[str, Any]:
    """Return the catalogue of the given declarations; `policies/schemas/catalog` is its schema."""
    return {
        "tools": {tool.name: _tool(tool) for tool in tools},
        "resources": {resource.uri: _resource(resource) for resource in resources},
        "prompts": {prompt.name: _prompt(prompt) for prompt in prompts},
    }


def every_tool() -> Catalog:
    """Return all tools, without connections to backends."""
    return Catalog(tool for family in _families() for tool in family.tools())


def every_resource() -> Resources:
    """Return all resources and templates, without connections to backends."""
    resources = [
        resource
        for family in _families()
        if isinstance(family, _HasResources)
        for resource in family.resources()
    ]
    return Resources([*resources, policy_me(_unread)])


def every_prompt() -> Prompts:
    """Return all prompts that any configuration can offer."""
    return Prompts(PROMPTS, every_tool())


@runtime_checkable
class _HasResources(Protocol):
    def resources(self) -> list[Resource]: ...


async def _unread(_: Caller) -> str:
    raise AssertionError("a declaration was read")


def _families() -> list[Kubernetes | Monitoring | Cmdb]:
    """Return all families, without connections to backends: declarations need none."""
    nowhere = MonitoringSettings.model_validate(
        {
            "prometheus_url": "https://invalid.",
            "alertmanager_url": "https://invalid.",
            "grafana": {
                "url": "https://invalid.",
                "token": {"file": "/nowhere"},
                "datasource_uid": "none",
            },
        }
    )
    no_cluster = KubernetesSettings.model_validate({"clusters": {"none": {"in_cluster": True}}})
    return [Kubernetes(no_cluster), Monitoring(nowhere), Cmdb(cast(CmdbBackend, None))]


def _tool(tool: Tool[Any, Any]) -> dict[str, Any]:
    return {
        "wire": tool.wire_name,
        "family": tool.family,
        "permission": tool.permission,
        "read_only": tool.read_only,
        "destructive": tool.destructive,
        "scope": asdict(tool.scope),
    }


def _resource(resource: Resource) -> dict[str, Any]:
    return {
        "family": resource.family,
        "permission": resource.permission,
        "read_only": True,
        "destructive": False,
        "scope": asdict(resource.scope),
    }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "family": "prompts",
        "permission": prompt.permission,
        "read_only": True,
        "destructive": False,
        "scope": asdict(Scope()),
    }
