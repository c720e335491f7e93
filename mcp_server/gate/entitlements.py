"""The resource `enterprise://policy/me`: what the caller may do, and the rest of each rate limit.

The policy answers all of it. This module formats the answer and leaves out tools, resources and prompts
that this server has no backend for.

The format::

    {"user", "tenant", "roles": [...], "policy_revision",
     "tools": [{"name", "title", "changes", "limits": [id, ...],
                "namespaces"?: {"named": [...], "others": bool, "all_at_once": bool}}],
     "resources": [uri or template, ...], "prompts": [name, ...],
     "limits": [{"id", "limit", "remaining", "window_s", "reset_ms"}]}

Tools that work in a namespace have `namespaces`. `named` lists namespaces that the policy allows by name
or pattern; `team-*` stands for all matches without their own entry. `others` tells whether all other
namespaces are allowed. `all_at_once` tells whether one call may read all of them. `reset_ms` are the
milliseconds until the oldest counted call leaves the window (0: none is counted). Reading the resource
is charged like every call; the query for the rest of the limits is not.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from mcp_server.gate.pipeline import Gate
from mcp_server.gate.request import Call, Caller
from mcp_server.gate.resource_reads import CallerResource
from mcp_server.policy import Entitlements, Resource
from mcp_server.policy.protocol import ToolEntitlement
from mcp_server.tools.catalog import Tool

__all__ = ["POLICY_ME", "EntitlementsReader", "policy_me"]

POLICY_ME = "enterprise://policy/me"


def policy_me(read_for: Callable[[Caller], Awaitable[str]]) -> CallerResource:
    """Return the declaration of the resource."""

    async def never(*_: Any) -> str:
        raise TypeError(f"{POLICY_ME} is read for a caller")

    return CallerResource(
        uri=POLICY_ME,
        name="policy-me",
        title="What I may do",
        description="What is available to you, where, and what is left of each limit.",
        permission="tools:read",
        read=never,
        read_for=read_for,
        source="the policy",
    )


class EntitlementsReader:
    """Reads the resource for one caller.

    Args:
        offered: returns the URIs of resources and the names of prompts of this server.
    """

    def __init__(self, gate: Gate, *, offered: Callable[[], Iterable[str]]) -> None:
        self._gate = gate
        self._offered = offered

    async def __call__(self, caller: Caller) -> str:
        """Return the resource as JSON text.

        Raises:
            Refused, NodeUnavailable: as `Gate.entitlements`.
        """
        call = Call("resources/read", Resource("resource", POLICY_ME))
        entitlements = await self._gate.entitlements(caller, call)
        return json.dumps(self._format(caller, entitlements), ensure_ascii=False)

    def _format(self, caller: Caller, entitlements: Entitlements) -> dict[str, Any]:
        offered = set(self._offered())
        entitled = {tool.id: tool for tool in entitlements.tools}
        return {
            "user": caller.subject.id,
            "tenant": caller.subject.tenant,
            "roles": entitlements.roles,
            "policy_revision": entitlements.revision,
            "tools": [
                _tool(tool, entitled[tool.name])
                for tool in self._gate.catalog
                if tool.name in entitled
            ],
            "resources": sorted(entitlements.resources & offered),
            "prompts": sorted(entitlements.prompts & offered),
            "limits": [quota.model_dump() for quota in entitlements.quota],
        }


def _tool(tool: Tool[Any, Any], entitlements: ToolEntitlement) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": tool.wire_name,
        "title": tool.title,
        "changes": not tool.read_only,
        "limits": entitlements.limits,
    }
    if tool.scope.namespace is not None:
        entry["namespaces"] = {
            "named": entitlements.namespaces,
            "others": entitlements.other_namespaces,
            "all_at_once": entitlements.all_namespaces,
        }
    return entry
