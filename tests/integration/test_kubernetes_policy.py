"""Who may do what to a cluster: the shipped policy before the Kubernetes tools of a real node."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_server.settings import KubernetesSettings
from tests.integration.clusters import Cluster, deployment
from tests.integration.nodes import LegacyClient, McpNode
from tests.integration.servers import RedisServer

pytestmark = pytest.mark.anyio

_NAMESPACES = "enterprise://k8s/main/namespaces"


@pytest.fixture(scope="module")
def kubernetes_node(make_node: Callable[..., McpNode], cluster: Cluster) -> McpNode:
    for namespace in ("production", "staging", "development"):
        cluster.create(deployment("judged", namespace, replicas=1))
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
