"""What the Kubernetes tools say of a change whose answer was lost, and whose trouble is whose."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mcp_server.settings import ClusterSettings, KubernetesSettings, Secret
from mcp_server.tools.backend import BackendUnavailable, OutcomeUnknown
from mcp_server.tools.catalog import ToolContext, ToolError
from mcp_server.tools.kubernetes.cluster import NodeUnavailable
from mcp_server.tools.kubernetes.family import Kubernetes
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES
from tests.integration.balancers import Balancer, Fate, Tunnel
from tests.integration.clusters import Cluster, deployment
from tests.integration.conditions import eventually
from tests.integration.kubernetes_calls import family, family_of, until
from tests.integration.servers import Authority, free_port

pytestmark = pytest.mark.anyio

_HERE = {"namespace": "development"}


@pytest.fixture(scope="module")
def web_cluster(cluster: Cluster) -> Cluster:
    cluster.create(
        deployment("judged-far", "development", replicas=1, node=None),
        deployment("logged-far", "development", replicas=1),
    )
    return cluster


@pytest.fixture
async def balancer(web_cluster: Cluster, authority: Authority) -> AsyncIterator[Balancer]:
    async with Balancer(web_cluster, authority) as running:
        yield running


def of_changes(fate: Fate) -> Fate:
    """Spoil the answers of changes only, and not the answer that a change was refused.

    A controller may write the deployment's status between what a tool reads and what it writes: the
    API server refuses the change then (409), and the tool makes it again.
    """

    async def chosen(request: web.Request, answer: web.Response) -> web.Response:
        unspoiled = request.method == "GET" or answer.status == 409
        return answer if unspoiled else await fate(request, answer)

    return chosen


async def cut(request: web.Request, answer: web.Response) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return answer


async def late(_: web.Request, answer: web.Response) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


def instead(status: int, text: str = "upstream trouble") -> Fate:
    async def fate(_request: web.Request, _answer: web.Response) -> web.Response:
        return web.Response(status=status, text=text)

    return fate


@pytest.mark.parametrize(
    ("fate", "said"),
    [
        (cut, "closed the connection"),
        (late, "gave no answer within 6 s"),
        (instead(500), "HTTP 500"),
        (instead(504), "HTTP 504"),
        (instead(200, "<html>"), "its response does not conform to its API"),
        (instead(200, '{"ok": true}'), "its response does not conform to its API"),
        (
            instead(200, '{"kind": "Status", "metadata": {}, "status": "Success"}'),
            "its response does not conform to its API",
        ),
        (
            instead(200, '{"kind": "Deployment", "metadata": {}, "spec": 7}'),
            "its response does not conform to its API",
        ),
    ],
    ids=["cut", "late", "500", "504", "no JSON", "other JSON", "other object", "odd object"],
)
@pytest.mark.parametrize("tool", ["scale_deployment", "restart_deployment"])
async def test_a_change_without_an_answer_is_made_once_and_said_to_be_unknown(
    web_cluster: Cluster, balancer: Balancer, tool: str, fate: Fate, said: str
) -> None:
    async def generation() -> int:
        read = web_cluster.read("Deployment", "development", "judged-far")
        return int(read["metadata"]["generation"])

    before = await generation()
    replicas = web_cluster.read("Deployment", "development", "judged-far")["spec"]["replicas"]
    arguments = {"replicas": replicas % 3 + 1} if tool == "scale_deployment" else {}
    balancer.fate = of_changes(fate)
    # Only what never answers needs a deadline that comes soon.
    timeout_s = 6 if fate is late else 60
    async with family_of({"main": balancer.settings()}, timeout_s=timeout_s) as call:
        with pytest.raises(OutcomeUnknown, match="not known whether the change was made") as error:
            await call(tool, **_HERE, deployment="judged-far", **arguments)

    assert said in str(error.value)
    assert "k8s_get_rollout_status" in str(error.value)
    assert not error.value.retryable
    assert await eventually(generation, lambda now: now != before) == before + 1
    changes = [status for method, status in balancer.answered if method != "GET"]
    assert [status for status in changes if status != 409] == [200]


@pytest.mark.parametrize("text", ["<html>", "[]", "null", '{"items": []}', '{"status": "ok"}'])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("get_pods", {}),
        ("get_deployments", {"all_namespaces": True}),
        ("get_events", {}),
        ("get_rollout_status", {"deployment": "judged-far"}),
    ],
)
async def test_what_is_not_of_the_api_is_an_outage_that_names_the_cluster(
    balancer: Balancer, tool: str, arguments: dict[str, Any], text: str
) -> None:
    balancer.fate = instead(200, text)
    async with family_of({"main": balancer.settings()}) as call:
        with pytest.raises(
            BackendUnavailable, match="the Kubernetes cluster main is not available"
        ):
            await call(tool, **arguments)


def _table(*cells: str, **row: Any) -> str:
    """Return a table with one row, under the columns of a list of deployments."""
    names = ("Name", "Ready", "Up-to-date", "Available", "Age", "Containers", "Images", "Selector")
    columns = [{"name": name} for name in names]
    rows = [{"cells": list(cells), **row}]
    return json.dumps({"kind": "Table", "metadata": {}, "columnDefinitions": columns, "rows": rows})


# Each is an object by its kind, and not the one that was asked for, or not whole.
ODD_OBJECTS = [
    '{"kind": "Status", "metadata": {}, "status": "Success"}',
    '{"kind": "List", "metadata": {}, "items": [{"metadata": {"name": "p"}}]}',
    '{"kind": "List", "metadata": {}, "items": {"a": 1}}',
    '{"kind": "List", "items": [7]}',
    '{"kind": "Table", "metadata": {}, "columnDefinitions": [{}], "rows": [{}]}',
    '{"kind": "Table", "metadata": {}, "columnDefinitions": 7, "rows": null}',
    _table("web", "1/2", "1", "<unknown>", "1d", "main", "i", "s"),
    _table("web", "all", "1", "1", "1d", "main", "i", "s"),
    _table("web"),
    '{"kind": "Deployment", "metadata": null, "spec": 7}',
    '{"kind": "Event", "metadata": {"name": "e"}, "items": [{"metadata": {"uid": 7}}]}',
]


@pytest.mark.parametrize("text", ODD_OBJECTS)
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("get_pods", {}),
        ("get_deployments", {}),
        ("get_deployments", {"all_namespaces": True}),
        ("get_events", {}),
        ("get_rollout_status", {"deployment": "judged-far"}),
        ("scale_deployment", {"deployment": "judged-far", "replicas": 1}),
    ],
)
async def test_an_object_of_another_shape_is_an_outage_that_names_the_cluster(
    balancer: Balancer, tool: str, arguments: dict[str, Any], text: str
) -> None:
    balancer.fate = instead(200, text)
    async with family_of({"main": balancer.settings()}) as call:
        with pytest.raises(
            BackendUnavailable,
            match=r"^the Kubernetes cluster main is not available: its response does not conform",
        ):
            await call(tool, **arguments)

    assert {method for method, _ in balancer.passed} == {"GET"}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        # What Kubernetes before 1.26 answers.
        ('{"kind": "APIGroupList", "groups": []}', ToolError, "widgets is no built-in kind, and"),
        (
            '{"kind": "APIGroupDiscoveryList", "items": [{"versions": 7}]}',
            BackendUnavailable,
            "its response does not conform to its API",
        ),
    ],
)
async def test_only_other_kinds_than_the_built_in_ones_need_the_clusters_list(
    balancer: Balancer, text: str, error: type[ToolError], said: str
) -> None:
    async def fate(request: web.Request, answer: web.Response) -> web.Response:
        return web.Response(text=text) if request.path == "/apis" else answer

    balancer.fate = fate
    async with family_of({"main": balancer.settings()}) as call:
        await call("get_events", kind="deploy")
        with pytest.raises(error, match=said):
            await call("get_events", kind="widgets")

    assert [path for _, path in balancer.passed].count("/apis") == 1


@pytest.mark.parametrize("text", [each for each in ODD_OBJECTS if '"name": "p"' not in each])
async def test_namespaces_of_another_shape_are_an_outage(balancer: Balancer, text: str) -> None:
    balancer.fate = instead(200, text)
    kubernetes = Kubernetes(KubernetesSettings(clusters={"main": balancer.settings()}))
    (template,) = (each for each in kubernetes.resources() if each.parameters)
    assert template.complete is not None
    context, cluster = ToolContext(user="alice", tenant="default"), {"cluster": "main"}
    said = "its response does not conform to its API"
    await kubernetes.start()
    try:
        with pytest.raises(BackendUnavailable, match=said):
            await template.read(context, cluster)
        with pytest.raises(BackendUnavailable, match=said):
            await template.complete("namespace", "", cluster, context)
    finally:
        await kubernetes.stop()


@pytest.mark.parametrize("text", ODD_OBJECTS)
async def test_a_service_of_another_shape_is_an_outage(balancer: Balancer, text: str) -> None:
    balancer.fate = instead(200, text)
    kubernetes = Kubernetes(KubernetesSettings(clusters={"main": balancer.settings()}))
    await kubernetes.start()
    try:
        with pytest.raises(BackendUnavailable, match="its response does not conform to its API"):
            await kubernetes.service_health(
                ToolContext(user="alice", tenant="default"),
                cluster=None,
                namespace="development",
                service="judged-far",
            )
    finally:
        await kubernetes.stop()


@pytest.mark.parametrize("text", ODD_OBJECTS)
async def test_autoscalers_of_another_shape_do_not_stop_a_scaling(
    web_cluster: Cluster, balancer: Balancer, text: str
) -> None:
    async def fate(request: web.Request, answer: web.Response) -> web.Response:
        return web.Response(text=text) if "autoscalers" in request.path else answer

    balancer.fate = fate
    async with family_of({"main": balancer.settings()}) as call:
        scaled = await call("scale_deployment", **_HERE, deployment="judged-far", replicas=1)

    assert scaled.after == 1
    assert scaled.warning is None or scaled.warning.startswith("whether an autoscaler manages it")


@pytest.mark.parametrize(
    "line",
    [
        "<html>",
        "7",
        "{}",
        '{"type": "MODIFIED"}',
        '{"type": "MODIFIED", "object": {"kind": "Deployment", "metadata": {}}}',
        '{"type": ["MODIFIED"], "object": null}',
    ],
)
async def test_a_watch_that_says_odd_things_is_no_reason_to_doubt_a_restart(
    balancer: Balancer, line: str
) -> None:
    async def fate(request: web.Request, answer: web.Response) -> web.Response:
        return web.Response(text=line + "\n") if "watch" in request.query else answer

    balancer.fate = fate
    async with family_of({"main": balancer.settings()}) as call:
        restarted = await call("restart_deployment", **_HERE, deployment="judged-far", wait_s=2)

    assert restarted.state == "progressing"
    assert "does not conform to its API" not in restarted.message


async def test_more_namespaces_than_a_document_holds_are_cut(balancer: Balancer) -> None:
    names = [f"{number:03}-{'n' * 59}" for number in range(1000)]
    items = [{"metadata": {"name": name}, "status": {"phase": "Active"}} for name in names]
    balancer.fate = instead(
        200, json.dumps({"kind": "NamespaceList", "metadata": {}, "items": items})
    )
    kubernetes = Kubernetes(KubernetesSettings(clusters={"main": balancer.settings()}))
    (template,) = (each for each in kubernetes.resources() if each.parameters)
    await kubernetes.start()
    try:
        text = await template.read(ToolContext(user="alice", tenant="default"), {"cluster": "main"})
    finally:
        await kubernetes.stop()

    document = json.loads(text)
    shown = [each["name"] for each in document["namespaces"]]
    assert 100 < len(shown) < 1000
    assert shown == names[: len(shown)]
    assert document["truncated"] is True
    assert len(text.encode()) < RESULT_BUDGET_BYTES


async def test_a_change_that_was_not_sent_may_be_tried_again(web_cluster: Cluster) -> None:
    settings = web_cluster.settings().model_dump()
    url = f"https://127.0.0.1:{free_port()}"
    nowhere = ClusterSettings.model_validate({**settings, "url": url})
    async with family_of({"main": nowhere}) as call:
        with pytest.raises(BackendUnavailable) as error:
            await call("restart_deployment", **_HERE, deployment="judged-far")

    assert error.value.retryable


async def test_a_dry_run_without_an_answer_is_tried_again(
    web_cluster: Cluster, balancer: Balancer
) -> None:
    lost = 0

    async def once(request: web.Request, answer: web.Response) -> web.Response:
        nonlocal lost
        lost += 1
        return await cut(request, answer) if lost == 1 else answer

    balancer.fate = of_changes(once)
    async with family_of({"main": balancer.settings()}) as call:
        tried = await call(
            "scale_deployment", **_HERE, deployment="judged-far", replicas=9, dry_run=True
        )

    assert (tried.after, lost) == (9, 2)
    assert web_cluster.read("Deployment", "development", "judged-far")["spec"]["replicas"] != 9


async def refused_often(
    tries: int, kind: type[ToolError], call: Callable[[], Awaitable[Any]]
) -> ToolError:
    """Make a call so often at once that an outage of the API server would open the circuit."""
    errors = await asyncio.gather(*(call() for _ in range(tries)), return_exceptions=True)
    for error in errors:
        assert isinstance(error, kind)
    assert isinstance(error, ToolError)
    return error


async def a_pod(call: Any, cluster: Cluster) -> dict[str, str]:
    """The arguments that name a pod that has a node."""
    await until(cluster, "development", "logged-far", 1)
    listed = await call("get_pods", **_HERE, label_selector="app=logged-far")
    return {**_HERE, "pod_name": listed.pods[0].name}


@pytest.mark.parametrize("how", ["stopped", "paused"])
async def test_a_node_that_is_away_leaves_the_tools_of_the_cluster_alone(
    web_cluster: Cluster, how: str
) -> None:
    async with family(web_cluster, timeout_s=6 if how == "paused" else 60) as call:
        target = await a_pod(call, web_cluster)
        with getattr(web_cluster.kubelet, how)():
            error = await refused_often(6, NodeUnavailable, lambda: call("get_pod_logs", **target))
            listed = await call("get_pods", **_HERE)

    assert "the node of the pod does not answer" in str(error)
    assert "127.0.0.1" not in str(error)
    assert error.retryable
    assert listed.pods


async def test_a_balancer_that_fails_a_log_is_an_outage_of_the_cluster(
    web_cluster: Cluster, balancer: Balancer
) -> None:
    async with family_of({"main": balancer.settings()}) as call:
        target = await a_pod(call, web_cluster)
        balancer.fate = instead(503)
        await refused_often(5, BackendUnavailable, lambda: call("get_pod_logs", **target))
        with pytest.raises(BackendUnavailable, match="recent calls failed"):
            await call("get_pods", **_HERE)


async def test_a_webhook_that_is_away_stops_a_change_and_not_the_tools(cluster: Cluster) -> None:
    place = {"namespace": "hooked"}
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "hooked", "labels": {"hooked": "yes"}},
        },
        deployment("hooked", "hooked", replicas=1, node=None),
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "away"},
            "webhooks": [
                {
                    "name": "away.registry.test",
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                    "clientConfig": {"url": f"https://127.0.0.1:{free_port()}/"},
                    "namespaceSelector": {"matchLabels": {"hooked": "yes"}},
                    "rules": [
                        {
                            "apiGroups": ["apps"],
                            "apiVersions": ["v1"],
                            "operations": ["UPDATE"],
                            "resources": ["deployments", "deployments/scale"],
                        }
                    ],
                }
            ],
        },
    )
    async with family(cluster) as call:

        async def change() -> None:
            await call("restart_deployment", **place, deployment="hooked")

        async def is_stopped() -> bool:
            with contextlib.suppress(ToolError):
                await change()
                return False
            return True

        # A webhook becomes known to the API server a little after it was made.
        await eventually(is_stopped, bool)
        error = await refused_often(6, ToolError, change)
        assert (await call("get_deployments", **place)).deployments

    assert "made no change: one of its admission webhooks does not answer" in str(error)
    assert error.retryable


@pytest.mark.parametrize("tool", ["get_deployments", "restart_deployment"])
async def test_a_redirect_is_not_followed(
    web_cluster: Cluster, authority: Authority, balancer: Balancer, tool: str
) -> None:
    async with Balancer(web_cluster, authority) as other:

        async def elsewhere(request: web.Request, _: web.Response) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{other.url}{request.path}"})

        balancer.fate = elsewhere
        async with family_of({"main": balancer.settings()}) as call:
            arguments = {"deployment": "judged-far"} if tool == "restart_deployment" else {}
            with pytest.raises(ToolError, match=r"redirect \(HTTP 307\), which is not followed"):
                await call(tool, **_HERE, **arguments)

        assert other.passed == []
        assert len(balancer.passed) == 1


async def test_a_proxy_of_the_environment_is_not_used(
    web_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tunnel() as tunnel:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, tunnel.url)
        async with family(web_cluster) as call:
            assert (await call("get_deployments", **_HERE)).deployments

    assert tunnel.asked == []


async def test_a_proxy_of_the_kubeconfig_is_used(web_cluster: Cluster) -> None:
    async with Tunnel() as tunnel:
        kubeconfig = web_cluster.write_kubeconfig("server", proxy=tunnel.url)
        async with family_of({"main": ClusterSettings(kubeconfig=kubeconfig)}) as call:
            assert (await call("get_deployments", **_HERE)).deployments

    assert tunnel.asked == [f"127.0.0.1:{web_cluster.api.port}"]


async def test_a_rollout_is_followed_though_every_watch_is_cut(
    cluster: Cluster, balancer: Balancer
) -> None:
    cluster.create(deployment("unwatchable", "development", replicas=1))
    await until(cluster, "development", "unwatchable", 1)
    balancer.cuts_watches = True
    async with family_of({"main": balancer.settings()}) as call:
        result = await call("restart_deployment", **_HERE, deployment="unwatchable", wait_s=60)

    assert result.state == "complete", result


async def test_a_restart_of_a_paused_deployment_is_refused_and_changes_nothing(
    cluster: Cluster,
) -> None:
    cluster.create(deployment("paused", "development", replicas=0, paused=True))
    async with family(cluster) as call:
        with pytest.raises(ToolError, match="deployment paused in namespace development is paused"):
            await call("restart_deployment", **_HERE, deployment="paused")

    template = cluster.read("Deployment", "development", "paused")["spec"]["template"]
    assert "annotations" not in template["metadata"]


async def test_the_pods_of_a_rollout_are_chosen_by_expressions_too(cluster: Cluster) -> None:
    expressions = [
        {"key": "app", "operator": "In", "values": ["chosen", "other"]},
        {"key": "tier", "operator": "NotIn", "values": ["x"]},
        {"key": "absent", "operator": "DoesNotExist"},
        {"key": "app", "operator": "Exists"},
    ]
    described = deployment("chosen", "development", replicas=3, node=None)
    described["spec"]["selector"] = {"matchExpressions": expressions}
    cluster.create(described)
    async with family(cluster) as call:
        found = await eventually(
            lambda: call("get_rollout_status", **_HERE, deployment="chosen"),
            lambda rollout: rollout.pods == {"Pending": 3},
        )

    assert found.pods == {"Pending": 3}


@pytest.mark.parametrize("tool", ["scale_deployment", "restart_deployment"])
async def test_a_change_that_the_cluster_has_no_time_for_was_not_made(
    cluster: Cluster, tool: str
) -> None:
    cluster.create(deployment(f"busy-{tool[:5]}", "development", replicas=0))
    arguments = {"replicas": 1} if tool == "scale_deployment" else {}
    async with family(cluster, "throttled") as call:
        with cluster.busy("throttled"), pytest.raises(ToolError, match="limits requests") as told:
            await call(tool, **_HERE, deployment=f"busy-{tool[:5]}", **arguments)

    assert told.value.retryable
    assert not isinstance(told.value, OutcomeUnknown)


async def test_what_is_not_there_is_named_by_every_tool(cluster: Cluster) -> None:
    named = {"deployment": "absent"}
    async with family(cluster) as call:
        for tool, arguments, said in (
            ("scale_deployment", {**named, "replicas": 1}, "has no deployment absent"),
            ("restart_deployment", named, "has no deployment absent"),
            ("get_pod_logs", {"pod_name": "absent"}, "has no log of pod absent"),
        ):
            with pytest.raises(ToolError, match=said) as told:
                await call(tool, **_HERE, **arguments)
            assert not told.value.retryable


async def test_a_container_that_the_pod_lacks_is_named(
    web_cluster: Cluster,
) -> None:
    async with family(web_cluster) as call:
        target = await a_pod(call, web_cluster)
        with pytest.raises(ToolError, match="container other is not valid for pod"):
            await call("get_pod_logs", **target, container="other")


async def test_a_token_is_read_again_when_its_file_changes(
    web_cluster: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("expired-token")
    settings = web_cluster.settings().model_copy(update={"token": Secret(file=file)})
    async with family_of({"main": settings}) as call:
        with pytest.raises(ToolError, match="does not accept this server's credentials"):
            await call("get_deployments", **_HERE)
        file.write_text("server-token")
        assert (await call("get_deployments", **_HERE)).deployments
