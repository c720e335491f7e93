"""Metrics for Prometheus and structured logs."""

from __future__ import annotations

import logging
import sys

import structlog
from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "AUTHENTICATION_FAILURES",
    "DECISIONS",
    "DECISION_SECONDS",
    "INFLIGHT",
    "READY",
    "REQUESTS",
    "REQUEST_SECONDS",
    "REVISION",
    "UNRECORDED",
    "configure_logs",
    "log",
    "publish_revision",
]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS = Counter("mcp_requests", "Requests by method and outcome", ["method", "outcome"])
REQUEST_SECONDS = Histogram(
    "mcp_request_seconds",
    "Time from the parsed request to its answer",
    ["method"],
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
UNRECORDED = Counter(
    "mcp_requests_not_recorded", "Audit rows left out because the policy allows it while it is down"
)
READY = Gauge("mcp_ready", "1 when the node can decide, count and audit")
INFLIGHT = Gauge("mcp_inflight_requests", "Requests in progress")
REVISION = Gauge("mcp_policy_revision_info", "1 for the policy revision in force", ["revision"])

log = structlog.stdlib.get_logger("mcp_server")


def publish_revision(revision: str) -> None:
    """Make `revision` the only one that `mcp_policy_revision_info` shows."""
    REVISION.clear()
    if revision:
        REVISION.labels(revision).set(1)


def configure_logs(level: str) -> None:
    """Write every log record, ours and the libraries', as one JSON object a line to standard error.

    Args:
        level: the least level that is written: DEBUG, INFO, WARNING or ERROR.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # A line a request is ours to write; the SDK's and the server's own chatter begins at warnings.
    for name in ("mcp", "uvicorn.access", "uvicorn.error", "alembic", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
