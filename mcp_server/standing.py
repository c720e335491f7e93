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
from mcp_server.policy import Resource, Standing
from mcp_server.policy.documents import ToolStanding
from mcp_server.resources import OwnDocument
from mcp_server.tools.catalog import Tool

__all__ = ["POLICY_ME", "StandingReader", "policy_me"]

POLICY_ME = "enterprise://policy/me"


def policy_me(read_for: Callable[[Caller], Awaitable[str]]) -> OwnDocument:
    """Return the declaration of the document."""

    async def never(*_: Any) -> str:
        raise TypeError(f"{POLICY_ME} is read for a caller")

    return OwnDocument(
        uri=POLICY_ME,
        name="policy-me",
        title="What I may do",
        description="What is available to you, where, and what is left of each limit.",
        permission="tools:read",
        read=never,
        read_for=read_for,
        source="the policy",
    )


class StandingReader:
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
            Refused, NodeUnavailable: as `Gate.standing`.
        """
        call = Call("resources/read", Resource("resource", POLICY_ME))
        standing = await self._gate.standing(caller, call)
        return json.dumps(self._document(caller, standing), ensure_ascii=False)

    def _document(self, caller: Caller, standing: Standing) -> dict[str, Any]:
        offered = set(self._offered())
        places = {tool.id: tool for tool in standing.tools}
        return {
            "user": caller.subject.id,
            "tenant": caller.subject.tenant,
            "roles": standing.roles,
            "policy_revision": standing.revision,
            "tools": [
                _tool(tool, places[tool.name]) for tool in self._gate.catalog if tool.name in places
            ],
            "resources": sorted(standing.resources & offered),
            "prompts": sorted(standing.prompts & offered),
            "limits": [quota.model_dump() for quota in standing.quota],
        }


def _tool(tool: Tool[Any, Any], standing: ToolStanding) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": tool.wire_name,
        "title": tool.title,
        "changes": not tool.read_only,
        "limits": standing.limits,
    }
    if tool.scope.namespace is not None:
        document["namespaces"] = {
            "named": standing.namespaces,
            "others": standing.other_namespaces,
            "all_at_once": standing.all_namespaces,
        }
    return document
