"""Metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "AUDIT_HEADS",
    "AUDIT_UNKNOWN",
    "AUTHENTICATION_FAILURES",
    "DECISIONS",
    "DECISION_SECONDS",
    "INFLIGHT",
    "READY",
    "REQUESTS",
    "REQUEST_SECONDS",
    "REVISION",
    "SIGN_INS",
    "UNRECORDED",
    "publish_revision",
]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS = Counter(
    "mcp_requests",
    "Requests by method, tool (of the catalogue; empty without one) and outcome",
    ["method", "tool", "outcome"],
)
REQUEST_SECONDS = Histogram(
    "mcp_request_seconds",
    "Time from the parsed request to its answer, by method and tool",
    ["method", "tool"],
    buckets=_BUCKETS,
)
DECISIONS = Counter(
    "mcp_decisions", "Answers of OPA by entry point and effect", ["entry", "effect"]
)
DECISION_SECONDS = Histogram(
    "mcp_decision_seconds", "Time OPA took to answer", ["entry"], buckets=_BUCKETS
)
AUTHENTICATION_FAILURES = Counter(
    "mcp_authentication_failures", "Requests that got 401, by the error code of RFC 6750", ["error"]
)
SIGN_INS = Counter(
    "mcp_sign_ins",
    "Attempts to sign in: with a password (all), and with a token or an API key (those that failed)",
    ["method", "result"],
)
UNRECORDED = Counter(
    "mcp_requests_not_recorded", "Audit rows left out because the policy allows it while it is down"
)
AUDIT_HEADS = Counter("mcp_audit_heads", "Signed heads of the audit log's chains", ["result"])
AUDIT_UNKNOWN = Counter(
    "mcp_audit_unknown_outcomes", "Changes whose outcome was never recorded, marked as unknown"
)
READY = Gauge("mcp_ready", "1 when the node can decide, count and audit")
INFLIGHT = Gauge("mcp_inflight_requests", "Requests in progress")
REVISION = Gauge("mcp_policy_revision_info", "1 for the policy revision in force", ["revision"])


def publish_revision(revision: str) -> None:
    """Set `revision` as the only series of `mcp_policy_revision_info`."""
    REVISION.clear()
    if revision:
        REVISION.labels(revision).set(1)
