"""Parts that stop, freeze and come back under a running node."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from mcp_server.settings import DatabaseSettings
from tests.integration.nodes import LegacyClient, McpNode, rpc
from tests.integration.servers import Opa, PostgresServer, RedisServer, build_bundle

pytestmark = pytest.mark.anyio

_POLICIES = Path(__file__).resolve().parents[2] / "policies"


async def readiness(
    http: httpx2.AsyncClient, status: int, deadline_s: float = 180
) -> httpx2.Response:
    """Wait until the node answers the question whether it is ready with this status."""
    end = time.monotonic() + deadline_s
    while (answer := await http.get("/health/ready")).status_code != status:
        assert time.monotonic() < end, f"the node still answers {answer.status_code}: {answer.text}"
        await asyncio.sleep(0.1)
    return answer


async def ready_again(http: httpx2.AsyncClient) -> None:
    """Wait until the node says it is ready."""
    await readiness(http, 200)


class TestOpa:
    @pytest.fixture
    def own_opa(self, workspace: Path, opa: Opa) -> Iterator[Opa]:
        server = Opa(workspace / "opa-fault", opa.bundle)
        server.start()
        yield server
        server.stop()

    @pytest.fixture
    def faulty(self, make_node: Callable[..., McpNode], own_opa: Opa) -> Iterator[McpNode]:
        node = make_node("node-opa", policy=own_opa.settings(timeout_s=5))
        yield node
        node.stop()

    async def test_without_opa_everything_is_503_and_nothing_runs(
        self, faulty: McpNode, own_opa: Opa
    ) -> None:
        async with faulty.http(faulty.token()) as http:
            with own_opa.stopped():
                listed = await _post(http, "tools/list")
                called = await _post(
                    http,
                    "tools/call",
                    {"name": "monitoring_query_metrics", "arguments": {"query": "up"}},
                )
                streamed = await _post(
                    http,
                    "tools/call",
                    {
                        "name": "monitoring_query_metrics",
                        "arguments": {"query": "up"},
                        "_meta": {"progressToken": 1},
                    },
                )
                rest = await http.get("/tools")
                ready = await readiness(http, 503)
                status = await faulty.status()
                live = await http.get("/health/live")
            await ready_again(http)
            again = await _post(http, "tools/list")

        for response in (listed, called, streamed, rest):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "2"
        assert called.json()["error"]["data"]["reasons"][0]["code"] == "policy_unavailable"
        assert ready.status_code == 503
        assert ready.json()["status"] == "not_ready"
        assert status["checks"]["policy"] == "down"
        assert live.status_code == 200
        assert again.status_code == 200

    async def test_a_frozen_opa_is_a_denial_within_its_deadline(
        self, faulty: McpNode, own_opa: Opa
    ) -> None:
        async with faulty.http(faulty.token()) as http:
            with own_opa.paused():
                started = time.monotonic()
                response = await _post(http, "tools/list")
                took = time.monotonic() - started
            await ready_again(http)

        assert response.status_code == 503
        assert took < 60  # frozen, it would never answer

    async def test_a_bundle_without_our_entry_points_is_a_denial(
        self, make_node: Callable[..., McpNode], workspace: Path
    ) -> None:
        tree = workspace / "wrong-policies"
        (tree / "mcp/decision").mkdir(parents=True)
        (tree / "config").mkdir()
        (tree / "mcp/decision/decision.rego").write_text(
            'package mcp.decision\n\nauthorize := {"version": 2, "effect": "allow"}\n'
        )
        server = Opa(workspace / "opa-wrong", build_bundle(tree, workspace / "wrong.tar.gz"))
        server.start()
        node = make_node("node-wrong", policy=server.settings())
        try:
            async with node.http(node.token(roles=["mcp:admin"])) as http:
                response = await _post(http, "tools/list")
        finally:
            node.stop()
            server.stop()

        assert response.status_code == 503


class TestRedis:
    async def test_calls_are_denied_while_redis_is_away_and_work_when_it_is_back(
        self, node: McpNode, redis_server: RedisServer
    ) -> None:
        async with node.http(node.token()) as http:
            client = LegacyClient(http)
            with redis_server.stopped():
                first = await client.call("monitoring_query_metrics", {"query": "up"})
                await readiness(http, 503)
                second = await client.call("monitoring_query_metrics", {"query": "up"})
                listed = await client.request("tools/list")
            await ready_again(http)
            after = await client.call("monitoring_query_metrics", {"query": "up"})

        for denied in (first, second):
            assert denied["error"]["data"]["reasons"][0]["code"] == "counters_unavailable"
            assert denied["error"]["data"]["retryable"] is True
        assert "result" in listed
        assert "result" in after

    async def test_a_frozen_redis_is_a_denial_within_its_deadline(
        self, make_node: Callable[..., McpNode], redis_server: RedisServer
    ) -> None:
        node = make_node("node-frozen", counters=redis_server.settings(timeout_s=4))
        async with node.http(node.token()) as http:
            client = LegacyClient(http)
            with redis_server.paused():
                started = time.monotonic()
                denied = await client.call("monitoring_query_metrics", {"query": "up"})
                took = time.monotonic() - started
            await ready_again(http)
        node.stop()

        assert denied["error"]["data"]["reasons"][0]["code"] == "counters_unavailable"
        assert took < 60  # frozen, it would never answer


class TestPostgres:
    async def test_nothing_unrecorded_is_answered(
        self, node: McpNode, postgres: PostgresServer
    ) -> None:
        async with node.http(node.token()) as http:
            client = LegacyClient(http)
            with postgres.stopped():
                await readiness(http, 503)
                denied = await client.call("monitoring_query_metrics", {"query": "up"})
                rest = await http.post(
                    "/tools/monitoring_query_metrics/execute", json={"query": "up"}
                )
            await ready_again(http)
            after = await client.call("monitoring_query_metrics", {"query": "up"})

        assert denied["error"]["data"]["reasons"][0]["code"] == "audit_unavailable"
        assert denied["error"]["data"]["retryable"] is True
        assert rest.status_code == 502
        assert rest.headers["retry-after"] == "2"
        assert "result" in after

    async def test_a_node_starts_while_everything_is_down(
        self,
        make_node: Callable[..., McpNode],
        node_database: DatabaseSettings,
        redis_server: RedisServer,
        postgres: PostgresServer,
    ) -> None:
        with postgres.stopped(), redis_server.stopped():
            node = make_node("node-early")
            async with node.http() as http:
                early = await http.get("/health/ready")
            status = await node.status()
        async with node.http() as http:
            await ready_again(http)
        node.stop()

        assert early.status_code == 503
        assert status["checks"] == {"policy": "up", "counters": "down", "audit": "down"}


class TestPrometheus:
    async def test_a_backend_that_is_away_is_a_tool_error_that_names_it(
        self, make_node: Callable[..., McpNode], assets: None
    ) -> None:
        node = make_node("node-blind", prometheus_url="http://127.0.0.1:9")
        try:
            async with node.http(node.token()) as http:
                client = LegacyClient(http)
                metrics = await client.call("monitoring_query_metrics", {"query": "up"})
                others = await client.call("cmdb_query_assets")
        finally:
            node.stop()

        assert metrics["result"]["isError"] is True
        assert "Prometheus is not available" in metrics["result"]["content"][0]["text"]
        assert others["result"]["structuredContent"]["total"] == 2


class TestLimitsOverNodes:
    @pytest.fixture
    def tight_opa(self, workspace: Path) -> Iterator[Opa]:
        """OPA with the shipped policies, and ten metric queries an hour for everyone together."""
        bundle = build_bundle(
            _tree_with_limit(workspace / "tight", "monitoring:query_metrics", 10),
            workspace / "tight.tar.gz",
        )
        server = Opa(workspace / "opa-tight", bundle)
        server.start()
        yield server
        server.stop()

    @pytest.fixture
    async def cluster(
        self, make_node: Callable[..., McpNode], tight_opa: Opa, redis_server: RedisServer
    ) -> AsyncIterator[list[McpNode]]:
        redis_server.cli("flushall")
        nodes = [make_node(f"tight{n}", policy=tight_opa.settings()) for n in (1, 2, 3)]
        yield nodes
        for node in nodes:
            node.stop()

    async def test_200_concurrent_calls_over_three_nodes_admit_exactly_10(
        self, cluster: list[McpNode], redis_server: RedisServer
    ) -> None:
        async def call(number: int) -> dict[str, Any]:
            node = cluster[number % len(cluster)]
            # 40 users, so that only the limit of the tool is reached.
            async with node.http(node.token(f"user{number % 40}")) as http:
                http.timeout = 600
                return await LegacyClient(http).call("monitoring_query_metrics", {"query": "up"})

        answers = await asyncio.gather(*(call(number) for number in range(200)))

        admitted = [answer for answer in answers if "result" in answer]
        limited = [answer for answer in answers if "error" in answer]
        assert len(admitted) == 10
        assert {answer["error"]["code"] for answer in limited} == {-32011}
        # What was refused was given back: the windows hold the admitted calls and nothing else.
        assert redis_server.cli("zcard", "mcp:window:global") == "10"


def _tree_with_limit(directory: Path, tool: str, limit: int) -> Path:
    shutil.copytree(_POLICIES, directory)
    path = directory / "config/limits/data.yaml"
    data = yaml.safe_load(path.read_text())
    data["tool"][tool] = {"limit": limit, "window_s": 3600, "per": "everyone"}
    path.write_text(yaml.safe_dump(data))
    return directory


async def _post(
    http: httpx2.AsyncClient, method: str, params: dict[str, Any] | None = None
) -> httpx2.Response:
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method}
    return await rpc(http, message if params is None else {**message, "params": params})
