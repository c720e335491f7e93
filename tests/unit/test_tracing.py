"""Traces cost nothing where they are not configured."""

from __future__ import annotations

import subprocess
import sys

from mcp_server.infrastructure.telemetry import tracing
from mcp_server.settings import TelemetrySettings


def test_without_an_endpoint_a_span_is_one_block_that_does_nothing() -> None:
    with tracing.exported(
        TelemetrySettings(), node="n1", methods=frozenset(), names=frozenset()
    ) as nothing:
        assert nothing is None
        assert tracing.request_span() is tracing.span("run") is tracing.span("backend", {"a": "b"})
        with tracing.request_span() as span:
            assert span is None
            tracing.annotate({"mcp.outcome": "ok"}, failed=False)


def test_a_server_without_traces_does_not_load_the_exporter() -> None:
    program = (
        "import sys, mcp_server.app; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk.trace', "
        "'opentelemetry.exporter', 'google.protobuf'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
