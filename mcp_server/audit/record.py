"""One row of the audit log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal
from uuid import UUID

from mcp_server.redaction import NO_ARGUMENTS, RedactedArguments, redact_text

__all__ = ["COLUMNS", "AuditReason", "AuditRecord", "Effect", "Outcome", "Phase"]

COLUMNS = {
    "time": "timestamptz",
    "event_id": "uuid",
    "request_id": "text",
    "phase": "text",
    "node": "text",
    "transport": "text",
    "method": "text",
    "user_id": "text",
    "tenant": "text",
    "tool": "text",
    "arguments": "jsonb",
    "client_ip": "inet",
    "user_agent": "text",
    "effect": "text",
    "reasons": "jsonb",
    "policy_revision": "text",
    "duration_ms": "double precision",
    "outcome": "text",
    "judged": "jsonb",
    "intent_id": "uuid",
    "result_sha256": "bytea",
    "result_bytes": "bigint",
}
"""Columns of audit.events and their types, in the order of `AuditRecord.row`."""

_TEXT_LIMIT = 1024  # characters of any one text column
_REASONS_LIMIT = 32


class Phase(StrEnum):
    """Time of writing: `intent` before a change, `outcome` when the result is known."""

    INTENT = "intent"
    OUTCOME = "outcome"


Effect = Literal["allow", "deny", "limited", "approval_required"]
"""What the policy decided."""

Outcome = Literal[
    "ok",
    "denied",
    "limited",
    "refused",
    "unavailable",
    "invalid_arguments",
    "tool_error",
    "error",
    "timeout",
    "cancelled",
    "not_repeated",
    "not_recorded",
    "unknown",
]
"""How a request ended; `refused` is of sign-ins, `not_repeated` of an Idempotency-Key."""


@dataclass(frozen=True, slots=True)
class AuditReason:
    """A reason of the policy's decision."""

    code: str
    message: str = ""
    rule: str = ""
    solution: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One row about one request.

    Attributes:
        time: time of the record, with a time zone.
        event_id: unique id; a record that is written twice results in one row.
        request_id: id that the rows of a request share with the logs of Nginx.
        phase: intent or outcome.
        node: name of the server that answered.
        transport: mcp, rest, stdio or cli (`mcpctl audit`).
        method: MCP method, such as tools/call.
        user_id: the subject; None if nobody was authenticated.
        tenant: tenant of the subject.
        tool: policy name of the tool, resource or prompt, such as monitoring:query_metrics.
        arguments: arguments of the call, redacted.
        client_ip: canonical address of the client.
        user_agent: as the client sent it.
        effect: what the policy decided.
        reasons: the policy's reasons for the effect.
        policy_revision: revision of the policy bundle that decided.
        duration_ms: milliseconds from the arrival of the request to this record.
        outcome: how the request ended; None in an intent.
        judged: the remaining input of the policy, so that an auditor can repeat the query
            (`audit.questions`).
        intent_id: of an outcome: the event_id of its intent.
        result_sha256: SHA-256 of the result that the caller got, as UTF-8.
        result_bytes: its size.
    """

    time: datetime
    event_id: UUID
    request_id: str
    phase: Phase
    node: str
    transport: str
    method: str
    user_id: str | None = None
    tenant: str | None = None
    tool: str | None = None
    arguments: RedactedArguments = NO_ARGUMENTS
    client_ip: IPv4Address | IPv6Address | None = None
    user_agent: str | None = None
    effect: Effect | None = None
    reasons: Sequence[AuditReason] = ()
    policy_revision: str | None = None
    duration_ms: float | None = None
    outcome: Outcome | None = None
    judged: RedactedArguments | None = None
    intent_id: UUID | None = None
    result_sha256: bytes | None = None
    result_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.time.utcoffset() is None:
            raise ValueError("the time of an audit record needs a time zone")

    def row(self) -> tuple[Any, ...]:
        """Return the values of `COLUMNS`; external texts are truncated and redacted."""
        return (
            self.time,
            self.event_id,
            _text(self.request_id),
            self.phase.value,
            self.node,
            self.transport,
            _text(self.method),
            _text(self.user_id),
            _text(self.tenant),
            _text(self.tool),
            self.arguments.json,
            self.client_ip,
            _text(self.user_agent),
            self.effect,
            _reasons(self.reasons),
            self.policy_revision,
            self.duration_ms,
            self.outcome,
            self.judged and self.judged.json,
            self.intent_id,
            self.result_sha256,
            self.result_bytes,
        )


def _text(value: str | None) -> Any:
    if value is None:
        return None
    clean = redact_text(value[: 2 * _TEXT_LIMIT])
    return clean if len(clean) <= _TEXT_LIMIT else clean[: _TEXT_LIMIT - 1] + "…"


def _reasons(reasons: Sequence[AuditReason]) -> str:
    if not reasons:
        return "[]"
    return json.dumps(
        [
            {name: _text(text) for name, text in asdict(reason).items() if text}
            for reason in reasons[:_REASONS_LIMIT]
        ],
        ensure_ascii=False,
    )
