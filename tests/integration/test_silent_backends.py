"""Backends that take a connection and say nothing, with the deadlines that an installation has."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.nodes import LegacyClient, McpNode
from tests.integration.servers import Opa, build_bundle

pytestmark = pytest.mark.anyio

_POLICIES = Path(__file__).resolve().parents[2] / "policies"
ADMIN = ("mcp:admin",)
DASHBOARD = {"title": "T", "panels": [{"title": "P", "query": "up"}]}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "Prometheus": ("monitoring_query_metrics", {"query": "up"}),
    "CMDB": ("cmdb_query_assets", {}),
    "Kubernetes cluster far": ("k8s_get_pods", {"namespace": "development"}),
}


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """The address of what takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def hasty_opa(workspace: Path) -> Iterator[Opa]:
    """OPA with policies that give every call three seconds: fewer than any backend's own deadline."""
    tree = shutil.copytree(_POLICIES, workspace / "hasty")
    path = tree / "config/obligations/data.yaml"
    data = yaml.safe_load(path.read_text())
    data["default"]["timeout_s"], data["tool"] = 3, {}
    path.write_text(yaml.safe_dump(data))
    server = Opa(workspace / "opa-hasty", build_bundle(tree, workspace / "hasty.tar.gz"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def make_deaf(
    make_node: Callable[..., McpNode], hasty_opa: Opa, silent: str, workspace: Path
) -> Iterator[Callable[..., McpNode]]:
    """Make a node whose backends have the deadlines that they have without a setting."""
    made: list[McpNode] = []
    secret = workspace / "any_secret"
    secret.write_text("any")

    def make(name: str, **monitoring: Any) -> McpNode:
        tools = {
            "monitoring": monitoring,
            "cmdb": {
                "backend": "rest",
                "api_url": f"http://{silent}",
                "key": {"file": str(secret)},
            },
            "kubernetes": {
                "clusters": {"far": {"url": f"https://{silent}", "token": {"file": str(secret)}}},
                "default": "far",
            },
        }
        node = make_node(name, policy=hasty_opa.settings(timeout_s=5), overrides={"tools": tools})
        made.append(node)
        return node

    yield make
    for node in made:
        node.stop()


@pytest.fixture
async def deaf(
    make_deaf: Callable[..., McpNode], silent: str, workspace: Path
) -> AsyncIterator[LegacyClient]:
    """A client of a node where nothing answers."""
    url = f"http://{silent}"
    node = make_deaf(
        "node-deaf", prometheus_url=url, alertmanager_url=url, grafana=_grafana(url, workspace)
    )
    async with node.http(node.token(roles=ADMIN)) as http:
        yield LegacyClient(http)
    node.stop()


@pytest.fixture
async def half_deaf(
    make_deaf: Callable[..., McpNode], silent: str, prometheus: Any, workspace: Path
) -> AsyncIterator[LegacyClient]:
    """A client of a node whose Prometheus alone answers."""
    node = make_deaf(
        "node-half-deaf",
        prometheus_url=prometheus.url,
        alertmanager_url=f"http://{silent}",
        grafana=_grafana(f"http://{silent}", workspace),
    )
    async with node.http(node.token(roles=ADMIN)) as http:
        yield LegacyClient(http)
    node.stop()


def _grafana(url: str, workspace: Path) -> dict[str, Any]:
    token = {"file": str(workspace / "any_secret")}
    return {"url": url, "token": token, "datasource_uid": "any"}


def _told(answer: dict[str, Any]) -> str:
    assert answer["result"]["isError"] is True, answer
    return str(answer["result"]["content"][0]["text"])


@pytest.mark.parametrize("name", list(CALLS))
async def test_it_is_named_and_its_circuit_opens(deaf: LegacyClient, name: str) -> None:
    tool, arguments = CALLS[name]

    first = await asyncio.gather(*(deaf.call(tool, arguments) for _ in range(5)))
    sixth = _told(await deaf.call(tool, arguments))

    for answer in first:
        assert f"{name} is not available: no " in _told(answer)
    assert f"{name} is not available: recent calls failed" in sixth


async def test_a_dashboard_is_not_said_to_be_made_perhaps(
    deaf: LegacyClient, half_deaf: LegacyClient
) -> None:
    unchecked = _told(await deaf.call("monitoring_create_dashboard", DASHBOARD))
    unsent = _told(await half_deaf.call("monitoring_create_dashboard", DASHBOARD))

    assert "Prometheus is not available: no answer within" in unchecked
    assert "Grafana is not available: no answer within" in unsent


async def test_alerts_of_prometheus_are_told_while_alertmanager_is_silent(
    half_deaf: LegacyClient,
) -> None:
    answer = (await half_deaf.call("monitoring_get_alerts"))["result"]

    assert not answer.get("isError"), answer
    assert "Alertmanager" in answer["content"][0]["text"]


async def test_silence_is_evidence_of_health_check(half_deaf: LegacyClient) -> None:
    answer = await half_deaf.call("monitoring_health_check", {"service": "prometheus"})

    assert not answer["result"].get("isError"), answer
    assert answer["result"]["structuredContent"]["verdict"] == "unknown"
    assert "Kubernetes cluster far is not available" in answer["result"]["content"][0]["text"]


async def test_a_completion_and_a_resource_name_it(deaf: LegacyClient) -> None:
    read = await deaf.request("resources/read", {"uri": "enterprise://k8s/far/namespaces"})
    completed = await deaf.request(
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": "enterprise://cmdb/assets/{id}"},
            "argument": {"name": "id", "value": "a"},
        },
    )

    assert "Kubernetes cluster far is not available" in read["error"]["message"]
    assert "CMDB is not available" in completed["error"]["message"]
