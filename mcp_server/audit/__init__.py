"""The audit log: request, decision and outcome, committed before the caller gets the answer."""

from mcp_server.audit.record import AuditReason, AuditRecord, Effect, Outcome, Phase
from mcp_server.audit.store import AuditStore, AuditUnavailable

__all__ = [
    "AuditReason",
    "AuditRecord",
    "AuditStore",
    "AuditUnavailable",
    "Effect",
    "Outcome",
    "Phase",
]
