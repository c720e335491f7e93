"""Errors over MCP: JSON-RPC errors of refusals and failures, and results that are tool errors."""

from __future__ import annotations

from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from mcp_server.gate import Failed, Limited, Refused
from mcp_server.transports.errors import FORBIDDEN, UNAVAILABLE, kind_of, refusal_details

__all__ = ["UNTRUSTED_SOURCE", "failure_error", "refusal_error", "tool_error", "untrusted"]

UNTRUSTED_SOURCE = "enterprise-mcp/untrusted-source"
# Reason codes of the policy for a hidden or absent target, and for a method that is not offered. Both
# get the specification's code for an absent one; methods that are not listed here have no handler.
_ABSENT = frozenset(("not_available", "method_unknown"))
_ABSENT_CODES = {
    "tools/call": FORBIDDEN.number,
    "resources/read": types.INVALID_PARAMS,
    "prompts/get": types.INVALID_PARAMS,
    "completion/complete": types.INVALID_PARAMS,
}


def refusal_error(method: str, refusal: Refused, **about: str) -> MCPError:
    """Return the error for a request that the gate refused.

    Args:
        about: further members of `data`.
    """
    kind = kind_of(refusal)
    data: dict[str, Any] = {**about, **refusal_details(refusal)}
    if kind is FORBIDDEN and any(reason.code in _ABSENT for reason in refusal.reasons):
        return MCPError(_ABSENT_CODES.get(method, types.METHOD_NOT_FOUND), str(refusal), data)
    if isinstance(refusal, Limited):
        data["quota"] = [quota.model_dump() for quota in refusal.quota]
    return MCPError(kind.number, str(refusal), {"code": kind.code, **data})


def failure_error(failure: Failed, **about: str) -> MCPError:
    """Return the error of a request that was allowed and failed; `data` names the source of its text."""
    number = UNAVAILABLE.number if failure.retryable else types.INVALID_PARAMS
    data = dict(about) if failure.source is None else {**about, **untrusted(failure.source)}
    return MCPError(number, str(failure), data)


def tool_error(text: str, source: str | None = None) -> types.CallToolResult:
    """Return the result of a tool call that failed.

    Args:
        source: the system from which the text came; None: the text is the server's own.
    """
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)],
        is_error=True,
        _meta=None if source is None else untrusted(source),
    )


def untrusted(source: str) -> dict[str, Any]:
    """Return metadata that names the system from which the text of a result came."""
    return {UNTRUSTED_SOURCE: source}
