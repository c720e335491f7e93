"""A node that is told to stop: what is in progress ends as it should, and nothing holds it up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from mcp_server import app
from mcp_server.gate import Gate
from mcp_server.health.probe import probe
from mcp_server.settings import (
    DatabaseSettings,
    KubernetesSettings,
    TelemetrySettings,
    load_settings,
)
from tests.integration.clusters import Cluster, deployment
from tests.integration.conditions import eventually
from tests.integration.kubernetes_calls import with_pods_that_become_ready
from tests.integration.nodes import McpNode, rpc
from tests.integration.servers import Opa, RedisServer

pytestmark = pytest.mark.anyio

ADMIN = ["mcp:admin"]
RESTART = "k8s_restart_deployment"
LISTEN = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "subscriptions/listen",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        },
        "notifications": {"toolsListChanged": True},
    },
}
MODERN = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "subscriptions/listen",
}


def tools(cluster: Cluster) -> dict[str, Any]:
    settings = KubernetesSettings(clusters={"main": cluster.settings()})
    return {"kubernetes": settings.model_dump(mode="json", exclude_none=True)}


def called(**arguments: Any) -> dict[str, Any]:
    params = {"name": RESTART, "arguments": {"namespace": "staging", **arguments}}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


async def until_status(node: McpNode, **wanted: Any) -> None:
    """Wait until the node says this of itself."""
    settings = TelemetrySettings(port=node.telemetry_port)
    await eventually(
        lambda: probe(settings, timeout_s=60), lambda status: wanted.items() <= status.items()
    )


async def test_streams_of_events_end_as_the_protocol_has_it_and_hold_nothing_up(
    make_node: Callable[..., McpNode],
) -> None:
    node = make_node("node-streaming")
    events: list[dict[str, Any]] = []
    async with (
        node.http(node.token()) as http,
        http.stream("POST", "/mcp", json=LISTEN, headers=MODERN) as stream,
    ):
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")))
                if len(events) == 1:
                    started = time.monotonic()
                    node.send(signal.SIGTERM)
        await asyncio.to_thread(node.stop)
        took = time.monotonic() - started

    assert [event.get("method") for event in events] == [
        "notifications/subscriptions/acknowledged",
        None,
    ]
    assert events[1]["id"] == 1
    assert events[1]["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == 1
    assert took < 60  # it drains for 0.2 s, and a stream has no end of its own
    assert '"level": "error"' not in node.log.read_text()


async def test_a_call_that_is_long_is_waited_for(
    make_node: Callable[..., McpNode], cluster: Cluster, redis_server: RedisServer
) -> None:
    redis_server.cli("flushall")
    cluster.create(deployment("waited", "staging", replicas=1, node=None))
    node = make_node("node-waiting", overrides={"tools": tools(cluster)})
    arguments = {"namespace": "staging", "deployment": "waited", "wait_s": 60}
    async with node.http(node.token(roles=ADMIN)) as http, asyncio.TaskGroup() as tasks:
        http.timeout = 120
        rest = tasks.create_task(http.post(f"/tools/{RESTART}/execute", json=arguments))
        mcp = tasks.create_task(rpc(http, called(deployment="waited", wait_s=60)))
        await until_status(node, inflight=2)
        node.send(signal.SIGTERM)
        await until_status(node, draining=True, inflight=2)
        both = asyncio.wait([rest, mcp])
        await with_pods_that_become_ready(cluster, "staging", "waited", both)
    ended = time.monotonic()
    await asyncio.to_thread(node.stop)

    assert rest.result().status_code == 200, rest.result().text
    assert rest.result().json()["result"]["state"] == "complete"
    assert mcp.result().json()["result"]["structuredContent"]["state"] == "complete"
    assert time.monotonic() - ended < 30
    assert '"level": "error"' not in node.log.read_text()


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node waits for a second instead of the longest deadline of its tools."""
    monkeypatch.setattr(Gate, "longest_s", 1.0)
    monkeypatch.setattr(app, "_ACCOUNTING_S", 0.0)


@asynccontextmanager
async def serving(node: McpNode) -> AsyncIterator[None]:
    """Serve in this process, and stop at the end of the block."""
    served = asyncio.create_task(app.serve(load_settings(node.config)))
    async with asyncio.timeout(120), httpx2.AsyncClient() as http:
        while True:
            assert not served.done()
            try:
                if (await http.get(f"{node.url}/health/ready")).status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.1)
    try:
        yield
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await served


@pytest.mark.usefixtures("in_a_hurry")
async def test_a_call_that_cannot_be_waited_for_is_answered_all_the_same(
    workspace: Path,
    opa: Opa,
    redis_server: RedisServer,
    node_database: DatabaseSettings,
    node_owner: asyncpg.Connection,
    cluster: Cluster,
) -> None:
    redis_server.cli("flushall")
    cluster.create(deployment("cut", "staging", replicas=1, node=None))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monitoring = {"prometheus_url": url, "alertmanager_url": url, "timeout_s": 120}
        node = McpNode(
            workspace / "node-hasty",
            policy=opa.settings(),
            counters=redis_server.settings(),
            database=node_database,
            prometheus_url=url,
            alertmanager_url=url,
            overrides={"tools": {**tools(cluster), "monitoring": monitoring}},
        )
        change = {"namespace": "staging", "deployment": "cut", "wait_s": 60}
        async with node.http(node.token("cut", roles=ADMIN)) as http:
            async with serving(node):
                changed = asyncio.create_task(http.post(f"/tools/{RESTART}/execute", json=change))
                changed_by_mcp = asyncio.create_task(rpc(http, called(deployment="cut", wait_s=60)))
                read = asyncio.create_task(
                    http.post("/tools/monitoring_query_metrics/execute", json={"query": "up"})
                )
                await until_status(node, inflight=3)
            answers = await asyncio.gather(changed, changed_by_mcp, read)
    recorded = await node_owner.fetch(
        "SELECT outcome FROM audit.events WHERE user_id = 'cut' AND phase = 'outcome'"
    )

    by_rest, by_mcp, by_reading = (answer.json() for answer in answers)
    unknown = (
        f"it is not known whether the change was made: {RESTART} did not end before this node had to "
        "stop; before you try again, look with k8s_get_deployments and k8s_get_rollout_status"
    )
    assert answers[0].status_code == 422
    assert by_rest["error"].items() >= {"message": unknown, "retryable": False}.items()
    assert by_mcp["result"]["isError"] is True
    assert by_mcp["result"]["content"][0]["text"] == unknown
    assert answers[2].status_code == 502
    assert by_reading["error"]["retryable"] is True
    assert "did not end before this node had to stop" in by_reading["error"]["message"]
    assert [row["outcome"] for row in recorded] == ["timeout"] * 3
