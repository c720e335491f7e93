"""Who may do what to a cluster: the shipped policy before the Kubernetes tools of a real node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from mcp_server.settings import KubernetesSettings
from tests.integration.clusters import Cluster, deployment
from tests.integration.nodes import LegacyClient, McpNode, modern_client, rpc
from tests.integration.servers import RedisServer

pytestmark = pytest.mark.anyio

_NAMESPACES = "enterprise://k8s/main/namespaces"


@pytest.fixture(scope="module")
def kubernetes_node(make_node: Callable[..., McpNode], cluster: Cluster) -> McpNode:
    for namespace in ("production", "staging", "development"):
        cluster.create(
            deployment("judged", namespace, replicas=1),
            deployment("completed", namespace, replicas=0),
        )
    settings = KubernetesSettings(clusters={"main": cluster.settings()})
    return make_node(
        "kubernetes-node",
        overrides={"tools": {"kubernetes": settings.model_dump(mode="json", exclude_none=True)}},
    )


@asynccontextmanager
async def caller(node: McpNode, role: str) -> AsyncIterator[LegacyClient]:
    async with node.http(node.token(roles=[role])) as http:
        yield LegacyClient(http)


def codes(answer: dict[str, Any]) -> set[str]:
    """The reasons of a refusal; of an answer that is none: nothing."""
    return {reason["code"] for reason in answer.get("error", {}).get("data", {}).get("reasons", ())}


async def test_families_without_a_backend_are_hidden_from_everyone(
    kubernetes_node: McpNode, redis_server: RedisServer
) -> None:
    """This node has clusters, and neither Prometheus nor a CMDB."""
    redis_server.cli("flushall")
    async with caller(kubernetes_node, "mcp:admin") as client:
        tools = (await client.request("tools/list"))["result"]["tools"]
        resources = (await client.request("resources/list"))["result"]["resources"]
        templates = (await client.request("resources/templates/list"))["result"]
        prompts = (await client.request("prompts/list"))["result"]["prompts"]
        absent = await client.call("cmdb_query_assets")
        unread = await client.request("resources/read", {"uri": "enterprise://cmdb/assets"})

    assert [tool["name"] for tool in tools] == [
        *("k8s_get_deployments", "k8s_get_events", "k8s_get_nodes", "k8s_get_pod_logs"),
        *(
            "k8s_get_pods",
            "k8s_get_rollout_status",
            "k8s_restart_deployment",
            "k8s_scale_deployment",
        ),
    ]
    assert [each["uri"] for each in resources] == [
        "enterprise://k8s/clusters",
        "enterprise://policy/me",
    ]
    assert [each["uriTemplate"] for each in templates["resourceTemplates"]] == [
        "enterprise://k8s/{cluster}/namespaces"
    ]
    assert [prompt["name"] for prompt in prompts] == ["review_rollout"]
    assert codes(absent) == {"not_available"}
    assert "there is no such resource" in unread["error"]["message"]


@pytest.mark.parametrize(
    ("role", "tool", "place", "refused"),
    [
        ("mcp:viewer", "k8s_get_pods", {"namespace": "development"}, None),
        ("mcp:viewer", "k8s_get_events", {"namespace": "staging"}, "namespace_not_available"),
        ("mcp:operator", "k8s_get_pods", {"namespace": "staging"}, None),
        ("mcp:operator", "k8s_get_pods", {"namespace": "production"}, "namespace_not_available"),
        ("mcp:operator", "k8s_get_pods", {"all_namespaces": True}, "cluster_wide_not_allowed"),
        ("mcp:operator", "k8s_get_events", {"all_namespaces": True}, "cluster_wide_not_allowed"),
        ("mcp:admin", "k8s_get_pods", {"namespace": "production"}, None),
        ("mcp:admin", "k8s_get_events", {"all_namespaces": True}, None),
        ("mcp:operator", "k8s_get_nodes", {}, "not_available"),
        ("mcp:admin", "k8s_get_nodes", {}, None),
    ],
)
async def test_reading_needs_a_role_for_the_place(
    kubernetes_node: McpNode,
    redis_server: RedisServer,
    role: str,
    tool: str,
    place: dict[str, Any],
    refused: str | None,
) -> None:
    redis_server.cli("flushall")
    async with caller(kubernetes_node, role) as client:
        answer = await client.call(tool, place)

    assert codes(answer) == ({refused} if refused else set())
    if refused is None:
        assert not answer["result"].get("isError"), answer


@pytest.mark.parametrize(
    ("role", "namespace", "refused"),
    [
        ("mcp:viewer", "development", "not_available"),
        ("mcp:operator", "production", "namespace_not_available"),
        ("mcp:operator", "staging", None),
        ("mcp:operator", "development", None),
        ("mcp:admin", "production", None),
    ],
)
async def test_scaling_needs_the_permission_and_a_role_for_the_namespace(
    kubernetes_node: McpNode,
    redis_server: RedisServer,
    cluster: Cluster,
    role: str,
    namespace: str,
    refused: str | None,
) -> None:
    redis_server.cli("flushall")
    target = {"namespace": namespace, "deployment": "judged"}
    before = cluster.read("Deployment", namespace, "judged")["spec"]["replicas"]
    async with caller(kubernetes_node, role) as client:
        answer = await client.call("k8s_scale_deployment", {**target, "replicas": before + 1})

    after = cluster.read("Deployment", namespace, "judged")["spec"]["replicas"]
    assert codes(answer) == ({refused} if refused else set())
    assert after == (before if refused else before + 1)


@pytest.mark.parametrize(
    ("tool", "arguments", "limit"),
    [
        ("k8s_scale_deployment", {"replicas": 1, "dry_run": True}, 10),
        ("k8s_restart_deployment", {}, 5),
    ],
)
async def test_changes_are_limited_for_everyone_together(
    kubernetes_node: McpNode,
    redis_server: RedisServer,
    tool: str,
    arguments: dict[str, Any],
    limit: int,
) -> None:
    redis_server.cli("flushall")
    target = {"namespace": "staging", "deployment": "judged", **arguments}
    async with caller(kubernetes_node, "mcp:admin") as one:
        within = [await one.call(tool, target) for _ in range(limit)]
    async with caller(kubernetes_node, "mcp:admin") as other:
        beyond = await other.call(tool, target)

    assert all("result" in answer for answer in within), within
    assert beyond["error"]["data"]["retry_after_ms"] > 0


async def test_an_admin_reads_the_namespaces_of_a_cluster(
    kubernetes_node: McpNode, redis_server: RedisServer
) -> None:
    redis_server.cli("flushall")
    async with caller(kubernetes_node, "mcp:admin") as client:
        answer = await client.request("resources/read", {"uri": _NAMESPACES})
        completion = await client.request(
            "completion/complete",
            {
                "ref": {"type": "ref/resource", "uri": "enterprise://k8s/{cluster}/namespaces"},
                "argument": {"name": "cluster", "value": "ma"},
            },
        )

    document = json.loads(answer["result"]["contents"][0]["text"])
    assert document["cluster"] == "main"
    assert {"name": "production", "phase": "Active"} in document["namespaces"]
    assert completion["result"]["completion"]["values"] == ["main"]


@pytest.mark.parametrize(
    ("role", "argument", "text", "values"),
    [
        ("mcp:admin", "cluster", "ma", ["main"]),
        ("mcp:admin", "namespace", "produ", ["production"]),
        ("mcp:operator", "namespace", "produ", []),
    ],
)
@pytest.mark.parametrize("given", [{}, {"cluster": "main"}])
async def test_a_prompt_completes_only_what_the_caller_may_list(
    kubernetes_node: McpNode,
    redis_server: RedisServer,
    role: str,
    argument: str,
    text: str,
    values: list[str],
    given: dict[str, str],
) -> None:
    redis_server.cli("flushall")
    async with caller(kubernetes_node, role) as client:
        answer = await client.request(
            "completion/complete",
            {
                "ref": {"type": "ref/prompt", "name": "review_rollout"},
                "argument": {"name": argument, "value": text},
                "context": {"arguments": given},
            },
        )

    assert answer["result"]["completion"]["values"] == values


@pytest.mark.parametrize(
    ("role", "given", "values"),
    [
        ("mcp:operator", {"namespace": "staging"}, ["completed"]),
        ("mcp:operator", {"namespace": "staging", "cluster": "main"}, ["completed"]),
        ("mcp:operator", {"namespace": "staging", "cluster": "other"}, None),
        ("mcp:operator", {"namespace": "production"}, []),
        ("mcp:operator", {"namespace": "../staging"}, []),
        ("mcp:viewer", {"namespace": "staging"}, []),
        ("mcp:viewer", {"namespace": "development"}, ["completed"]),
        ("mcp:admin", {"namespace": "production"}, ["completed"]),
        ("mcp:admin", {}, []),
    ],
)
async def test_a_deployment_is_completed_where_the_caller_may_list_them(
    kubernetes_node: McpNode,
    redis_server: RedisServer,
    role: str,
    given: dict[str, str],
    values: list[str] | None,
) -> None:
    redis_server.cli("flushall")
    async with caller(kubernetes_node, role) as client:
        answer = await client.request(
            "completion/complete",
            {
                "ref": {"type": "ref/prompt", "name": "review_rollout"},
                "argument": {"name": "deployment", "value": "compl"},
                "context": {"arguments": given},
            },
        )

    if values is None:
        assert "there is no cluster of that name" in answer["error"]["message"]
    else:
        assert answer["result"]["completion"]["values"] == values


async def test_the_default_cluster_is_judged_and_recorded_by_its_name(
    kubernetes_node: McpNode, redis_server: RedisServer, node_owner: asyncpg.Connection
) -> None:
    redis_server.cli("flushall")
    since = await node_owner.fetchval("SELECT now()")
    async with caller(kubernetes_node, "mcp:operator") as client:
        await client.call("k8s_get_pods", {"namespace": "staging"})

    recorded = await node_owner.fetchval(
        "SELECT arguments->>'cluster' FROM audit.events WHERE tool = 'k8s:get_pods' AND time >= $1",
        since,
    )
    assert recorded == "main"


async def test_completing_deployments_elsewhere_is_recorded_as_denied(
    kubernetes_node: McpNode, redis_server: RedisServer, node_owner: asyncpg.Connection
) -> None:
    redis_server.cli("flushall")
    since = await node_owner.fetchval("SELECT now()")
    async with caller(kubernetes_node, "mcp:operator") as client:
        await client.request(
            "completion/complete",
            {
                "ref": {"type": "ref/prompt", "name": "review_rollout"},
                "argument": {"name": "deployment", "value": ""},
                "context": {"arguments": {"namespace": "production"}},
            },
        )

    rows = await node_owner.fetch(
        "SELECT tool, effect, outcome FROM audit.events "
        "WHERE method = 'completion/complete' AND time >= $1 ORDER BY time",
        since,
    )
    assert [tuple(row) for row in rows] == [
        ("review_rollout", "allow", "ok"),
        ("k8s:get_deployments", "deny", "denied"),
    ]


async def test_a_cluster_that_is_not_there_is_told_in_the_servers_own_words(
    kubernetes_node: McpNode, redis_server: RedisServer
) -> None:
    redis_server.cli("flushall")
    async with caller(kubernetes_node, "mcp:admin") as client:
        called = await client.call("k8s_get_pods", {"namespace": "staging", "cluster": "nope"})
        read = await client.request("resources/read", {"uri": "enterprise://k8s/nope/namespaces"})

    said = "cluster: there is no cluster of that name; known: main"
    assert called["result"]["content"][0]["text"] == f"Invalid arguments: {said}"
    assert read["error"]["message"] == said
    data = read["error"]["data"]
    assert data.pop("request_id")
    assert data == {
        "code": "invalid_params",
        "retryable": False,
        "uri": "enterprise://k8s/nope/namespaces",
    }


@pytest.mark.parametrize("role", ["mcp:viewer", "mcp:operator"])
async def test_others_do_not_learn_that_there_is_a_list_of_namespaces(
    kubernetes_node: McpNode, redis_server: RedisServer, role: str
) -> None:
    redis_server.cli("flushall")
    async with caller(kubernetes_node, role) as client:
        hidden = await client.request("resources/read", {"uri": _NAMESPACES})
        absent = await client.request("resources/read", {"uri": "enterprise://k8s/main/absent"})
        templates = await client.request("resources/templates/list")

    assert codes(hidden) == codes(absent) == {"not_available"}
    assert hidden["error"]["code"] == absent["error"]["code"]
    assert "k8s" not in str(templates["result"])


def _restart(name: str, wait_s: int = 60) -> dict[str, Any]:
    """Return the parameters of a call that restarts a deployment and waits for its rollout."""
    arguments = {"namespace": "staging", "deployment": name, "wait_s": wait_s}
    return {"name": "k8s_restart_deployment", "arguments": arguments}


class TestProgress:
    """A restart is waited for; the client hears how far it is before the answer."""

    async def test_the_2025_era_gets_events_that_rise_and_then_the_answer(
        self, kubernetes_node: McpNode, redis_server: RedisServer, cluster: Cluster
    ) -> None:
        redis_server.cli("flushall")
        cluster.create(deployment("heard-2025", "staging", replicas=1))
        params = {**_restart("heard-2025"), "_meta": {"progressToken": "mine"}}
        async with kubernetes_node.http(kubernetes_node.token(roles=["mcp:admin"])) as http:
            answer = await rpc(
                http, {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
            )

        assert answer.headers["content-type"].startswith("text/event-stream")
        *reports, last = [
            json.loads(line.removeprefix("data: "))
            for line in answer.text.splitlines()
            if line.startswith("data: ")
        ]
        assert {report["method"] for report in reports} == {"notifications/progress"}
        assert {report["params"]["progressToken"] for report in reports} == {"mine"}
        done = [report["params"]["progress"] for report in reports]
        assert done[0] == 0
        assert done == sorted(set(done))
        assert reports[0]["params"]["message"] == "the controller has not observed the change yet"
        assert last["id"] == 7
        assert last["result"]["structuredContent"]["state"] == "complete"

    async def test_the_newest_era_hears_it_too(
        self, kubernetes_node: McpNode, redis_server: RedisServer, cluster: Cluster
    ) -> None:
        redis_server.cli("flushall")
        cluster.create(deployment("heard-newest", "staging", replicas=1))
        heard: list[tuple[float, float | None, str | None]] = []

        async def listen(progress: float, total: float | None, message: str | None) -> None:
            heard.append((progress, total, message))

        token = kubernetes_node.token(roles=["mcp:admin"])
        async with modern_client(kubernetes_node, token) as client:
            answer = await client.call_tool(**_restart("heard-newest"), progress_callback=listen)

        assert heard[0] == (0, 1, "the controller has not observed the change yet")
        assert answer.structured_content["state"] == "complete"

    @pytest.mark.parametrize(
        ("name", "meta", "accept"),
        [
            ("unasked", {}, "application/json, text/event-stream"),
            ("unheard", {"_meta": {"progressToken": "mine"}}, "application/json"),
        ],
    )
    async def test_who_does_not_wait_for_reports_gets_one_document(
        self,
        kubernetes_node: McpNode,
        redis_server: RedisServer,
        cluster: Cluster,
        name: str,
        meta: dict[str, Any],
        accept: str,
    ) -> None:
        redis_server.cli("flushall")
        cluster.create(deployment(name, "staging", replicas=1))
        params = {**_restart(name, wait_s=1), **meta}
        async with kubernetes_node.http(kubernetes_node.token(roles=["mcp:admin"])) as http:
            answer = await rpc(
                http,
                {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params},
                Accept=accept,
            )

        assert answer.headers["content-type"] == "application/json"
        assert "restarted_at" in answer.json()["result"]["structuredContent"]

    async def test_a_client_that_leaves_is_recorded_and_the_change_stays(
        self,
        kubernetes_node: McpNode,
        redis_server: RedisServer,
        node_owner: asyncpg.Connection,
        cluster: Cluster,
    ) -> None:
        redis_server.cli("flushall")
        cluster.create(deployment("left", "staging", replicas=1, node=None))
        params = {**_restart("left"), "_meta": {"progressToken": "mine"}}
        async with (
            kubernetes_node.http(kubernetes_node.token("leaver", roles=["mcp:admin"])) as http,
            http.stream(
                "POST",
                "/mcp",
                json={"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params},
                headers={
                    "Accept": "application/json, text/event-stream",
                    "MCP-Protocol-Version": "2025-06-18",
                },
            ) as stream,
        ):
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    break

        rows: list[asyncpg.Record] = []
        async with asyncio.timeout(120):
            while len(rows) < 2:
                rows = await node_owner.fetch(
                    "SELECT phase, outcome FROM audit.events WHERE user_id = 'leaver'"
                    " AND tool = 'k8s:restart_deployment' ORDER BY time"
                )
                await asyncio.sleep(0.1)
        assert [(row["phase"], row["outcome"]) for row in rows] == [
            ("intent", None),
            ("outcome", "cancelled"),
        ]
        template = cluster.read("Deployment", "staging", "left")["spec"]["template"]
        assert "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]
