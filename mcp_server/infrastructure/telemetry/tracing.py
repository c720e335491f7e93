"""Traces over OTLP/HTTP, if an endpoint is configured; otherwise nothing is loaded and nothing runs.

The MCP SDK creates a span for each message. The pipeline creates a span for each request: a child of the
message's span, or the root for REST. Its child spans are the decision, the counters, the execution with
its backend calls, and the commit of the audit row.

Spans contain no arguments, and no texts of clients or backends: only the attributes in `_ATTRIBUTES` are
exported, only known names, and no events or descriptions of errors.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Thread
from typing import TYPE_CHECKING, Any

# The API, which the MCP SDK imports too. The SDK and the exporter are imported where they are used: a
# server without traces needs neither.
from opentelemetry.trace import (
    Span,
    SpanContext,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_tracer_provider,
)

from mcp_server import __version__
from mcp_server.settings import TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["annotate", "exported", "is_exporting", "request_span", "span"]

_EXPORT_TIMEOUT_S = 5.0
_FLUSH_S = 3.0  # a node that stops waits this long for a collector
_OWN_SCOPE = "enterprise-mcp"
_METHOD, _TOOL, _PROMPT = "mcp.method.name", "gen_ai.tool.name", "gen_ai.prompt.name"
# The values of the first three come from clients: only known names are exported.
_ATTRIBUTES = frozenset(
    {
        *(_METHOD, _TOOL, _PROMPT),
        *(
            "mcp.protocol.version",
            "gen_ai.operation.name",
            "error.type",
            "rpc.response.status_code",
        ),
        *("mcp.request_id", "mcp.transport", "mcp.outcome", "policy.effect", "policy.revision"),
        *("enterprise_mcp.tool", "peer.service", "audit.phase"),
    }
)

_NO_SPAN: AbstractContextManager[None] = nullcontext()


class _Exported:
    """The tracer while spans are exported; otherwise None."""

    tracer: Tracer | None = None


def is_exporting() -> bool:
    """Return whether spans are exported."""
    return _Exported.tracer is not None


def request_span() -> AbstractContextManager[Span | None]:
    """Return a span around a request, as a child of the span of its MCP message if there is one.

    Without an endpoint, this function and `span` return the same context manager, which does nothing.
    """
    return _NO_SPAN if _Exported.tracer is None else _started(_Exported.tracer, "request", None)


def span(
    name: str, attributes: Mapping[str, str] | None = None
) -> AbstractContextManager[Span | None]:
    """Return a span around a part of a request; outside of requests, such as for probes, no span.

    Args:
        name: a constant; never an external text.
        attributes: with keys of `_ATTRIBUTES`.
    """
    if _Exported.tracer is None or not get_current_span().is_recording():
        return _NO_SPAN
    return _started(_Exported.tracer, name, attributes)


def annotate(attributes: Mapping[str, str], *, failed: bool) -> None:
    """Add attributes to the current span, and mark whether it failed."""
    if _Exported.tracer is None:
        return
    current = get_current_span()
    current.set_attributes(attributes)
    if failed:
        current.set_status(StatusCode.ERROR)


def _started(
    tracer: Tracer, name: str, attributes: Mapping[str, str] | None
) -> AbstractContextManager[Span]:
    return tracer.start_as_current_span(name, attributes=attributes, record_exception=False)


@contextmanager
def exported(
    settings: TelemetrySettings, *, node: str, methods: Set[str], names: Set[str]
) -> Iterator[None]:
    """Export the spans of this process while the block runs, if an endpoint is configured.

    A collector that is down delays no call: spans wait in a bounded queue, which drops the excess.

    Args:
        node: this node's name, as `service.instance.id`.
        methods: the MCP methods that spans may name.
        names: the tools and prompts that spans may name.
    """
    if settings.otlp_endpoint is None:
        yield
        return
    known = {_METHOD: methods, _TOOL: names, _PROMPT: names}
    provider = _provider(settings, node=node, known=known)
    _Exported.tracer = provider.get_tracer(_OWN_SCOPE, __version__)
    try:
        yield
    finally:
        _Exported.tracer = None
        flush = Thread(target=provider.shutdown, daemon=True)
        flush.start()
        flush.join(_FLUSH_S)


def _provider(
    settings: TelemetrySettings, *, node: str, known: Mapping[str, Set[str]]
) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    # Without a file, the exporter would trust the authorities of a Python package, not the system's.
    system = ssl.get_default_verify_paths()
    ca = settings.otlp_ca or system.cafile or system.capath
    exporter = OTLPSpanExporter(
        endpoint=f"{str(settings.otlp_endpoint).rstrip('/')}/v1/traces",
        certificate_file=None if ca is None else str(ca),
        timeout=_EXPORT_TIMEOUT_S,
    )
    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": "enterprise-mcp",
                "service.version": __version__,
                "service.instance.id": node,
            }
        ),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(_cleaning(exporter, known)))
    # The MCP SDK uses the global provider. OpenTelemetry allows setting it once per process.
    set_tracer_provider(provider)
    return provider


def _cleaning(exporter: SpanExporter, known: Mapping[str, Set[str]]) -> SpanExporter:
    """Return an exporter that removes everything written by clients or backends from spans."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult  # noqa: PLC0415

    class Cleaning(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return exporter.export([_clean(each, known) for each in spans])

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Cleaning()


def _clean(span: ReadableSpan, known: Mapping[str, Set[str]]) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415

    attributes: dict[str, Any] = {
        key: value
        for key, value in (span.attributes or {}).items()
        if key in _ATTRIBUTES and (key not in known or value in known[key])
    }
    scope = span.instrumentation_scope
    name = span.name
    if scope is None or scope.name != _OWN_SCOPE:
        # The SDK names a span after the method of the message and, for a call, the tool.
        words = (attributes.get(key) for key in (_METHOD, _TOOL, _PROMPT))
        name = " ".join(word for word in words if word) or "other"
    return ReadableSpan(
        name=name,
        context=_without_state(span.context),
        parent=_without_state(span.parent),
        resource=span.resource,
        attributes=attributes,
        kind=span.kind,
        instrumentation_scope=scope,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def _without_state(context: SpanContext | None) -> SpanContext | None:
    """Return a span context without its `tracestate`, which clients can set."""
    if context is None:
        return None
    return SpanContext(
        context.trace_id, context.span_id, context.is_remote, trace_flags=context.trace_flags
    )
