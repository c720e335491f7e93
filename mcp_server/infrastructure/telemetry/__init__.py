"""Metrics for Prometheus, structured logs, and traces over OTLP (`tracing`)."""

from mcp_server.infrastructure.telemetry.logs import configure_logs, log
from mcp_server.infrastructure.telemetry.metrics import (
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
