"""Traces over OTLP/HTTP, received by a collector of the tests that decodes the protocol buffers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.integration.nodes import ENVELOPE, McpNode, modern_rpc
from tests.integration.servers import RedisServer, free_port

pytestmark = pytest.mark.anyio

_TOOL = "monitoring_query_metrics"
_CLIENTS_SPAN = bytes.fromhex("b7ad6b7169203331")
_PATIENCE_S = 30.0  # the exporter sends every five seconds


class Collector:
    """Receives spans at /v1/traces."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.bodies: list[bytes] = []
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self._port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/traces", self._receive)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def trace_of(self, request_id: str) -> list[Span]:
        """Return all spans of the trace in which this request is, once its root is there."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            for span in self.spans:
                if attributes(span).get("mcp.request_id") == request_id:
                    trace = [each for each in self.spans if each.trace_id == span.trace_id]
                    ids = {each.span_id for each in trace}
                    # Parents end, and are sent, after their children.
                    roots = (b"", _CLIENTS_SPAN)
                    if all(each.parent_span_id in (*ids, *roots) for each in trace):
                        return trace
            await asyncio.sleep(0.1)
        raise AssertionError(f"no trace of request {request_id}: {[s.name for s in self.spans]}")

    async def _receive(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        message = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for group in message.resource_spans:
            self.resources.append({a.key: a.value.string_value for a in group.resource.attributes})
            self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")


def attributes(span: Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


def tree(trace: list[Span]) -> dict[str, set[str]]:
    """Return the names of the children of each span, by its name; of the root as ``""``."""
    names = {span.span_id: span.name for span in trace}
    children: dict[str, set[str]] = {}
    for span in trace:
        children.setdefault(names.get(span.parent_span_id, ""), set()).add(span.name)
    return children


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def traced(make_node: Callable[..., McpNode], port: int) -> Iterator[McpNode]:
    node = make_node("traced", telemetry={"otlp_endpoint": f"http://127.0.0.1:{port}"})
    yield node
    node.stop()


@pytest.fixture
async def collector(
    traced: McpNode, port: int, redis_server: RedisServer
) -> AsyncIterator[Collector]:
    redis_server.cli("flushall")
    collector = Collector(port)
    await collector.start()
    yield collector
    await collector.stop()


def call(name: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


async def test_a_tool_call_is_a_trace_of_its_steps_below_the_span_of_the_sdk(
    traced: McpNode, collector: Collector
) -> None:
    async with traced.http(traced.token(), **{"X-Request-Id": "traced-1"}) as http:
        answer = await modern_rpc(http, call(_TOOL, query="up"))

    assert answer.json()["result"]["structuredContent"] is not None
    trace = await collector.trace_of("traced-1")
    assert tree(trace) == {
        "": {f"tools/call {_TOOL}"},
        f"tools/call {_TOOL}": {"request"},
        "request": {"policy.authorize", "counters.charge", "run", "audit.commit"},
        "run": {"backend"},
    }
    spans = {span.name: span for span in trace}
    request = attributes(spans["request"])
    assert request.pop("policy.revision")
    assert request == {
        "enterprise_mcp.tool": "monitoring:query_metrics",
        "mcp.method.name": "tools/call",
        "mcp.outcome": "ok",
        "mcp.request_id": "traced-1",
        "mcp.transport": "mcp",
        "policy.effect": "allow",
    }
    assert attributes(spans["backend"]) == {"peer.service": "Prometheus"}
    assert attributes(spans["audit.commit"]) == {"audit.phase": "outcome"}
    assert spans[f"tools/call {_TOOL}"].kind == Span.SpanKind.SPAN_KIND_SERVER
    assert collector.resources[0]["service.name"] == "enterprise-mcp"
    assert collector.resources[0]["service.instance.id"] == "traced"


async def test_no_argument_no_secret_and_no_word_of_a_client_is_exported(
    traced: McpNode, collector: Collector
) -> None:
    token = traced.token(user="olga-hunter2")
    message = call(_TOOL, query='up{secret="hunter2"}', hunter2="hunter2")
    unknown = call("password-hunter2", password="hunter2")
    for sent in (message, unknown):
        sent["id"] = "id-hunter2"
        state = {
            "traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{_CLIENTS_SPAN.hex()}-01",
            "tracestate": "vendor=hunter2",
        }
        sent["params"]["_meta"] = {**ENVELOPE, **state}
    made_up = {"jsonrpc": "2.0", "id": 2, "method": "tools/hunter2", "params": {}}
    async with traced.http(token) as http:
        for number, sent in enumerate((message, unknown, made_up)):
            headers = {"X-Request-Id": f"quiet-{number}"}
            if sent is not made_up:
                headers["MCP-Protocol-Version"] = "2026-07-28"
                headers["Mcp-Method"] = sent["method"]
                headers["Mcp-Name"] = sent["params"]["name"]
                await http.post("/mcp", json=sent, headers=headers)
            else:
                await modern_rpc(http, made_up, **headers)
    traces = [await collector.trace_of(f"quiet-{number}") for number in (1, 2)]

    exported = b"".join(collector.bodies)
    assert b"hunter2" not in exported
    assert b"up{" not in exported
    assert token.encode() not in exported
    assert {span.name for span in traces[0]} >= {"tools/call", "request"}
    assert {span.name for span in traces[1]} >= {"other", "request"}
    assert not any(span.events or span.status.message for span in collector.spans)


async def test_a_refused_call_over_rest_is_a_trace_with_its_outcome(
    traced: McpNode, collector: Collector
) -> None:
    async with traced.http(
        traced.token(roles=["no:such-role"]), **{"X-Request-Id": "traced-rest"}
    ) as http:
        answer = await http.post(f"/tools/{_TOOL}/execute", json={"query": "up"})

    assert answer.status_code == 403
    trace = await collector.trace_of("traced-rest")
    assert tree(trace) == {"": {"request"}, "request": {"policy.authorize", "audit.commit"}}
    (request,) = (span for span in trace if span.name == "request")
    assert attributes(request)["mcp.outcome"] == "denied"
    assert attributes(request)["policy.effect"] == "deny"
    assert request.status.code == request.status.STATUS_CODE_ERROR


async def test_calls_and_the_end_of_a_node_do_not_wait_for_a_collector_that_is_down(
    make_node: Callable[..., McpNode],
) -> None:
    node = make_node("untraced", telemetry={"otlp_endpoint": f"http://127.0.0.1:{free_port()}"})
    async with node.http(node.token()) as http:
        answer = await modern_rpc(http, call(_TOOL, query="up"))
    assert answer.json()["result"]["structuredContent"] is not None

    started = time.monotonic()
    node.stop()

    assert time.monotonic() - started < 15
