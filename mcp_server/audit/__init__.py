"""What was asked, what was decided, what came of it: kept before the caller gets the answer."""

from mcp_server.audit.record import AuditReason, AuditRecord, Phase
from mcp_server.audit.store import AuditStore, AuditUnavailable

__all__ = ["AuditReason", "AuditRecord", "AuditStore", "AuditUnavailable", "Phase"]
