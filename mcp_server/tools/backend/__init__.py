"""Calls to backends: the systems behind the tools, such as Prometheus or a Kubernetes API server.

- `http`: the client of a JSON API.
- `guard`: deadline, retry, concurrency limit and circuit breaker of the calls to one backend.
- `circuit`: the circuit breaker.
- `errors`: what a call can raise.
"""

from mcp_server.tools.backend.circuit import OPEN_S
from mcp_server.tools.backend.errors import (
    BackendUnavailable,
    OutcomeUnknown,
    ResponseTooLarge,
    SlowResponse,
    parsing,
)
from mcp_server.tools.backend.guard import Guard
from mcp_server.tools.backend.http import HttpBackend, Probe, no_resend, parse_json, read_body

__all__ = [
    "OPEN_S",
    "BackendUnavailable",
    "Guard",
    "HttpBackend",
    "OutcomeUnknown",
    "Probe",
    "ResponseTooLarge",
    "SlowResponse",
    "no_resend",
    "parse_json",
    "parsing",
    "read_body",
]
