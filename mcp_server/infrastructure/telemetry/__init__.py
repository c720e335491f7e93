"""Metrics for Prometheus, structured logs, and traces over OTLP (`tracing`)."""

from mcp_server.infrastructure.telemetry.logs import configure_logs, log
from mcp_server.infrastructure.telemetry.metrics import (
    AUDIT_HEADS,
    AUDIT_UNKNOWN,
    AUTHENTICATION_FAILURES,
    DECISION_SECONDS,
    DECISIONS,
    INFLIGHT,
    READY,
    REQUEST_SECONDS,
    REQUESTS,
    REVISION,
    SIGN_INS,
    UNRECORDED,
    publish_revision,
)

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
    "configure_logs",
    "log",
    "publish_revision",
]
