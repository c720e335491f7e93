"""The gate: every request of every transport passes through it.

Read `pipeline` first: it holds the steps of a request in their order. `recorder` writes the audit rows.
`tool_calls` and `resource_reads` run a tool or read a resource inside the pipeline; `entitlements` is
the resource about the caller. `idempotency` makes a change with one Idempotency-Key once. `charging`
makes the charges of rate limits; `sign_ins` takes attempts to sign in through the same policy, counters
and audit log. `request` and `errors` hold the types.
"""

from mcp_server.gate.errors import (
    Failed,
    InternalError,
    Limited,
    NodeUnavailable,
    OutcomeNotRecorded,
    Refused,
    ScopeMissing,
)
from mcp_server.gate.idempotency import IdempotencyKey, KeyConflict
from mcp_server.gate.pipeline import Gate
from mcp_server.gate.request import Answer, Call, Caller, ToolAnswer
from mcp_server.gate.tool_calls import Progress, call_tool, tool_context

__all__ = [
    "Answer",
    "Call",
    "Caller",
    "Failed",
    "Gate",
    "IdempotencyKey",
    "InternalError",
    "KeyConflict",
    "Limited",
    "NodeUnavailable",
    "OutcomeNotRecorded",
    "Progress",
    "Refused",
    "ScopeMissing",
    "ToolAnswer",
    "call_tool",
    "tool_context",
]
