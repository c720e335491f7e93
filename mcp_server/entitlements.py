"""`enterprise://policy/me`: what may I do here, and how much of each limit is left?

Everything in it is Rego's answer; this module only gives it a shape and leaves out what this server
has no backend for.

The document's shape::

    {"user", "tenant", "roles": [...], "policy_revision",
     "tools": [{"name", "title", "changes", "limits": [id, ...],
                "namespaces"?: {"named": [...], "others": bool, "all_at_once": bool}}],
     "resources": [uri or template, ...], "prompts": [name, ...],
     "limits": [{"id", "limit", "remaining", "window_s", "reset_ms"}]}

`namespaces` stands with the tools that work in one: those named in the policy, by name or by a pattern
(`team-*`: what it matches and the policy does not name otherwise), whether all others are allowed too,
and whether one call may read all of them. `reset_ms` is when the oldest counted call
leaves the window (0: nothing is counted). Reading the document is a call like any other and is
charged; finding out what is left is not.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from mcp_server.gate import Call, Caller, Gate
from mcp_server.policy import Entitlements, Resource
from mcp_server.policy.protocol import ToolEntitlement
from mcp_server.resources import CallerResource
from mcp_server.tools.catalog import Tool

__all__ = ["POLICY_ME", "EntitlementsReader", "policy_me"]

POLICY_ME = "enterprise://policy/me"


def policy_me(read_for: Callable[[Caller], Awaitable[str]]) -> CallerResource:
    """Return the declaration of the document."""

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
    """Reads the document for one caller.

    Args:
        offered: the URIs and the names of prompts that this server offers.
    """

    def __init__(self, gate: Gate, *, offered: Callable[[], Iterable[str]]) -> None:
        self._gate = gate
        self._offered = offered

    async def __call__(self, caller: Caller) -> str:
        """Return the document as JSON text.

        Raises:
            Refused, NodeUnavailable: as `Gate.entitlements`.
        """
        call = Call("resources/read", Resource("resource", POLICY_ME))
        entitlements = await self._gate.entitlements(caller, call)
        return json.dumps(self._document(caller, entitlements), ensure_ascii=False)

    def _document(self, caller: Caller, entitlements: Entitlements) -> dict[str, Any]:
        offered = set(self._offered())
        places = {tool.id: tool for tool in entitlements.tools}
        return {
            "user": caller.subject.id,
            "tenant": caller.subject.tenant,
            "roles": entitlements.roles,
            "policy_revision": entitlements.revision,
            "tools": [
                _tool(tool, places[tool.name]) for tool in self._gate.catalog if tool.name in places
            ],
            "resources": sorted(entitlements.resources & offered),
            "prompts": sorted(entitlements.prompts & offered),
            "limits": [quota.model_dump() for quota in entitlements.quota],
        }


def _tool(tool: Tool[Any, Any], entitlements: ToolEntitlement) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": tool.wire_name,
        "title": tool.title,
        "changes": not tool.read_only,
        "limits": entitlements.limits,
    }
    if tool.scope.namespace is not None:
        document["namespaces"] = {
            "named": entitlements.namespaces,
            "others": entitlements.other_namespaces,
            "all_at_once": entitlements.all_namespaces,
        }
    return document
