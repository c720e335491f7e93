"""The Kubernetes tools when something is wrong: clusters, connections, pods, concurrent changes."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.config import incluster_config

from mcp_server.settings import ClusterSettings, KubernetesSettings, SettingsError
from mcp_server.tools.backend import OPEN_S, BackendUnavailable
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.kubernetes.cluster import Cluster as Connected
from mcp_server.tools.kubernetes.cluster import Conflict
from tests.clocks import Clock
from tests.integration.clusters import Cluster, deployment, pod
from tests.integration.conditions import eventually
from tests.integration.kubernetes_calls import (
    Call,
    become_ready,
    family,
    family_of,
    until,
    with_pods_that_become_ready,
)
from tests.integration.nodes import McpNode, modern_client
from tests.integration.servers import Alertmanager, Prometheus, RedisServer, free_port

pytestmark = pytest.mark.anyio

_HERE = {"namespace": "development"}


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Cluster:
    cluster.create(deployment("sturdy", "development", replicas=2))
    return cluster


def closed_port(cluster: Cluster) -> ClusterSettings:
    """Settings of a cluster where nobody listens."""
    url = f"https://127.0.0.1:{free_port()}"
    return ClusterSettings.model_validate({**cluster.settings().model_dump(), "url": url})


async def test_a_cluster_that_is_down_is_named_and_leaves_the_others_alone(web: Cluster) -> None:
    clusters = {"here": web.settings(), "gone": closed_port(web)}
    async with family_of(clusters, default="here") as call:
        for _ in range(5):
            with pytest.raises(BackendUnavailable, match="the Kubernetes cluster gone is not"):
                await call("get_pods", cluster="gone", **_HERE)
        with pytest.raises(
            BackendUnavailable, match=r"gone is not .*recent calls failed; next attempt"
        ):
            await call("get_pods", cluster="gone", **_HERE)

        assert (await call("get_deployments", **_HERE)).deployments


@asynccontextmanager
async def changing_before_each_write(
    cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> AsyncIterator[None]:
    """Change a deployment between what a tool reads and what it writes, so many times."""
    write = Connected.change
    left = times

    async def change(self: Connected, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            label = {"metadata": {"labels": {"n": str(left)}}}
            cluster.patch("Deployment", "development", name, label)
        return await write(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Connected, "change", change)
        yield


async def test_scaling_goes_on_after_a_change_in_between(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.create(deployment("raced", "development", replicas=1))
    async with (
        family(cluster) as call,
        changing_before_each_write(cluster, "raced", monkeypatch, 1),
    ):
        done = await call("scale_deployment", **_HERE, deployment="raced", replicas=2)

    assert (done.before, done.after) == (1, 2)


async def test_scaling_gives_up_where_changes_do_not_end(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.create(deployment("contended", "development", replicas=1))
    async with (
        family(cluster) as call,
        changing_before_each_write(cluster, "contended", monkeypatch, 9),
    ):
        with pytest.raises(Conflict, match=r"someone else meanwhile; nothing was changed") as said:
            await call("scale_deployment", **_HERE, deployment="contended", replicas=4)

    assert said.value.retryable
    assert cluster.read("Deployment", "development", "contended")["spec"]["replicas"] == 1


class Heard:
    """What a call reported, and whether it did already."""

    def __init__(self) -> None:
        self.reports: list[tuple[float, float | None, str]] = []
        self.first = asyncio.Event()

    async def __call__(self, done: float, total: float | None, message: str) -> None:
        self.reports.append((done, total, message))
        self.first.set()


async def test_a_waited_restart_reports_how_far_it_is(cluster: Cluster) -> None:
    cluster.create(deployment("heard", "development", replicas=2, node=None))
    ready = until(cluster, "development", "heard", 2)
    await with_pods_that_become_ready(cluster, "development", "heard", ready)
    heard = Heard()
    async with family(cluster, progress=heard) as call:
        restart = call("restart_deployment", **_HERE, deployment="heard", wait_s=60)
        result = await with_pods_that_become_ready(cluster, "development", "heard", restart)

    assert result.state == "complete"
    assert {total for _, total, _ in heard.reports} == {2}
    messages = [message for _, _, message in heard.reports]
    assert messages[0] == "the controller has not observed the change yet"
    assert any("replicas are updated" in message for message in messages)


async def test_a_restart_is_waited_for_without_the_right_to_watch(cluster: Cluster) -> None:
    api, place = "rbac.authorization.k8s.io", {"namespace": "unwatched"}
    cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "unwatched"}},
        {
            "apiVersion": f"{api}/v1",
            "kind": "Role",
            "metadata": {"name": "restarts", **place},
            "rules": [
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]}
            ],
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "restarts", **place},
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "restarts"},
            "subjects": [{"apiGroup": api, "kind": "User", "name": "nobody"}],
        },
        deployment("polled", "unwatched", replicas=1, node=None),
    )
    async with family(cluster, "nobody") as call:
        restart = call("restart_deployment", **place, deployment="polled", wait_s=60)
        result = await with_pods_that_become_ready(cluster, "unwatched", "polled", restart)

    assert result.state == "complete", result


async def a_pod_of(cluster: Cluster, call: Call, name: str) -> dict[str, str]:
    """Return the arguments that name a pod of a deployment."""
    await until(cluster, "development", name, 2)
    listed = await call("get_pods", **_HERE, label_selector=f"app={name}")
    return {**_HERE, "pod_name": listed.pods[0].name}


async def test_the_log_before_a_restart_of_the_container_is_told_apart(web: Cluster) -> None:
    web.write_log(["after"])
    web.write_log(["before"], previous=True)
    async with family(web) as call:
        target = await a_pod_of(web, call, "sturdy")
        now = await call("get_pod_logs", **target)
        before = await call("get_pod_logs", **target, previous=True)

    assert (now.text, before.text) == ("after", "before")


async def test_a_log_begins_where_it_was_asked_to(web: Cluster) -> None:
    stamps = {age: datetime.now(UTC) - timedelta(seconds=age) for age in (3600, 5)}
    web.logs.write_text(
        "".join(
            f"{then:%Y-%m-%dT%H:%M:%S.%f}000Z stdout F {age} seconds old\n"
            for age, then in stamps.items()
        )
    )
    async with family(web) as call:
        target = await a_pod_of(web, call, "sturdy")
        whole = await call("get_pod_logs", **target)
        late = await call("get_pod_logs", **target, since_seconds=600)

    assert (whole.lines, late.text) == (2, "5 seconds old")


async def test_of_a_long_log_the_newest_lines_are_kept(web: Cluster) -> None:
    web.write_log(f"{n:04} {'x' * 1000}" for n in range(2000))
    async with family(web) as call:
        target = await a_pod_of(web, call, "sturdy")
        result = await call("get_pod_logs", **target, tail_lines=2000)

    numbers = [int(line[:4]) for line in result.text.splitlines()]
    assert numbers == list(range(2000 - len(numbers), 2000))
    assert len(numbers) > 20
    assert result.note == f"{2000 - len(numbers)} older lines left out, the text is too long"
    assert len(result.text) < 28 * 1024


@pytest.mark.parametrize("searched", [{}, {"grep": "1999"}], ids=["read", "searched"])
async def test_of_a_log_that_the_api_cuts_the_newest_lines_are_asked_for_again(
    web: Cluster, searched: dict[str, str]
) -> None:
    # 2000 lines of 10 kB: more than the 8 MiB that are asked for at once.
    web.write_log(f"{n:04} {'x' * 10_000}" for n in range(2000))
    async with family(web) as call:
        target = await a_pod_of(web, call, "sturdy")
        result = await call("get_pod_logs", **target, tail_lines=2000, **searched)

    assert result.text.splitlines()[-1].startswith("1999 ")
    read = "searched" if searched else "read"
    assert re.search(rf"only the last \d+ lines were {read}", result.note), result.note
    assert "lines are cut at 4096 characters" in result.note
    assert "newest line" not in result.note


async def test_a_single_line_that_is_too_long_is_cut_at_its_end(web: Cluster) -> None:
    web.write_log(["x" * (9 * 2**20)])
    async with family(web) as call:
        target = await a_pod_of(web, call, "sturdy")
        result = await call("get_pod_logs", **target)

    assert result.text == "x" * 4096 + "…"
    assert "the end of the newest line is missing" in result.note


async def test_a_log_is_read_in_bounded_memory(web: Cluster) -> None:
    web.write_log(f"{n:04} {'x' * 10_000}" for n in range(2000))
    async with family(web) as call:
        target = await a_pod_of(web, call, "sturdy")
        tracemalloc.start()
        try:
            await call("get_pod_logs", **target, tail_lines=2000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    # The log has 20 MB; what comes faster than it is looked at waits in the client's buffer.
    assert peak < 8 * 2**20, peak


async def test_a_masked_secret_cannot_be_guessed_by_searching(web: Cluster) -> None:
    key = [f"{'MIIEvQ/Ab1' * 6}{n:04}" for n in range(8)]
    web.write_log(
        [
            r'{"log":"{\"password\":\"hunter2\"}"}',
            "login password=hunter2 ok",
            "-----BEGIN PRIVATE KEY-----",
            *key,
            "-----END PRIVATE KEY-----",
            "after",
        ]
    )
    async with family(web) as call:
        target = await a_pod_of(web, call, "sturdy")
        guesses = [
            await call("get_pod_logs", **target, grep=guess) for guess in ("hunter", "miievq")
        ]
        found = await call("get_pod_logs", **target, grep="LOGIN")
        escaped = await call("get_pod_logs", **target, grep='"log"')
        tail = await call("get_pod_logs", **target, tail_lines=4)

    assert [guess.lines for guess in guesses] == [0, 0]
    assert found.text == "login password=[redacted] ok"
    assert escaped.text == r'{"log":"{\"password\":[redacted]}"}'
    assert tail.text.splitlines() == ["[redacted]"] * 3 + ["after"]


async def test_a_search_keeps_the_newest_lines_with_the_text(web: Cluster) -> None:
    web.write_log(f"{'ERROR' if n % 10 == 0 else 'info'} {n}" for n in range(1000))
    async with family(web) as call:
        target = await a_pod_of(web, call, "sturdy")
        found = await call("get_pod_logs", **target, grep="error", tail_lines=2)
        none = await call("get_pod_logs", **target, grep="absent")

    assert found.text == "ERROR 980\nERROR 990"
    assert (none.lines, none.text) == (0, "")


def state(name: str = "main", *, restarts: int = 0, **of: Any) -> dict[str, Any]:
    """The status of a container that is not ready."""
    return {
        "name": name,
        "image": "",
        "imageID": "",
        "ready": False,
        "restartCount": restarts,
        "state": of,
    }


_WAITS: dict[str, Any] = {"waiting": {"reason": "PodInitializing"}}


@pytest.mark.parametrize(
    ("name", "status", "shown"),
    [
        (
            "initializing",
            {
                "phase": "Pending",
                "initContainerStatuses": [state("init", running={})],
                "containerStatuses": [state(**_WAITS)],
            },
            ("Init:0/1", "0/1", 0),
        ),
        (
            "init-loop",
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    state("init", restarts=4, waiting={"reason": "CrashLoopBackOff"})
                ],
                "containerStatuses": [state(**_WAITS)],
            },
            ("Init:CrashLoopBackOff", "0/1", 4),
        ),
        (
            "no-image",
            {
                "phase": "Pending",
                "conditions": [{"type": "Initialized", "status": "True"}],
                "containerStatuses": [state(waiting={"reason": "ImagePullBackOff"})],
            },
            ("ImagePullBackOff", "0/1", 0),
        ),
        (
            "out-of-memory",
            {
                "phase": "Failed",
                "conditions": [{"type": "Initialized", "status": "True"}],
                "containerStatuses": [
                    state(restarts=2, terminated={"exitCode": 137, "reason": "OOMKilled"})
                ],
            },
            ("OOMKilled", "0/1", 2),
        ),
    ],
)
async def test_a_pod_that_does_not_run_says_why(
    cluster: Cluster, name: str, status: dict[str, Any], shown: tuple[str, str, int]
) -> None:
    init = [{"name": "init", "image": "registry.test/init:1"}]
    cluster.create(pod(name, "staging", initContainers=init))
    cluster.patch_status("Pod", "staging", name, status)

    async with family(cluster) as call:
        listed = await call("get_pods", namespace="staging", field_selector=f"metadata.name={name}")

    (row,) = listed.pods
    assert (row.status, row.ready, row.restarts) == shown


async def test_a_pod_that_is_being_deleted_is_terminating(cluster: Cluster) -> None:
    held: dict[str, Any] = {"metadata": {"finalizers": ["registry.test/held"]}}
    cluster.create(pod("leaving", "staging", **held))
    cluster.patch_status("Pod", "staging", "leaving", {"phase": "Running"})
    cluster.delete("Pod", "staging", "leaving")
    try:
        async with family(cluster) as call:
            listed = await call(
                "get_pods", namespace="staging", field_selector="metadata.name=leaving"
            )
    finally:
        cluster.patch("Pod", "staging", "leaving", {"metadata": {"finalizers": None}})

    assert [row.status for row in listed.pods] == ["Terminating"]


@pytest.mark.parametrize("context", ["tests", None], ids=["by name", "the current one"])
async def test_a_cluster_is_reached_by_a_kubeconfig(web: Cluster, context: str | None) -> None:
    settings = ClusterSettings(kubeconfig=web.write_kubeconfig("server"), context=context)
    async with family_of({"main": settings}) as call:
        assert (await call("get_deployments", **_HERE)).deployments


async def test_a_context_that_the_kubeconfig_lacks_is_named(web: Cluster) -> None:
    settings = ClusterSettings(kubeconfig=web.write_kubeconfig("server"), context="absent")
    with pytest.raises(SettingsError, match=r"clusters\.main: .*absent"):
        async with family_of({"main": settings}):
            pass


async def test_a_cluster_is_reached_from_inside_a_pod(
    web: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The place is the same in every pod, so that it is no setting.
    (tmp_path / "token").write_text("server-token")
    settings = web.settings()
    assert settings.ca is not None
    (tmp_path / "ca.crt").write_bytes(settings.ca.read_bytes())
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    inside = ClusterSettings(in_cluster=True)

    with pytest.raises(SettingsError, match=r"clusters\.main: Service host/port is not set"):
        async with family_of({"main": inside}):
            pass
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(web.api.port))
    async with family_of({"main": inside}) as call:
        assert (await call("get_deployments", **_HERE)).deployments


# Prometheus scrapes itself as the job `prometheus`: it is up, and no alert is about it.
_SERVICE = "prometheus"


@pytest.fixture(scope="module")
def watched_node(
    make_node: Callable[..., McpNode],
    cluster: Cluster,
    prometheus: Prometheus,
    alertmanager: Alertmanager,
) -> McpNode:
    """A node that has both the cluster and Prometheus, with a service of two pods in the cluster."""
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _SERVICE, "namespace": "staging"},
            "spec": {"selector": {"app": _SERVICE}, "ports": [{"port": 80}]},
        },
        deployment(_SERVICE, "staging", replicas=2),
    )
    kubernetes = KubernetesSettings(clusters={"main": cluster.settings()})
    return make_node(
        "watched-node",
        overrides={
            "tools": {
                "kubernetes": kubernetes.model_dump(mode="json", exclude_none=True),
                "monitoring": {
                    "prometheus_url": prometheus.url,
                    "alertmanager_url": alertmanager.url,
                },
            }
        },
    )


async def test_the_health_check_of_a_node_follows_the_cluster(
    watched_node: McpNode, cluster: Cluster, redis_server: RedisServer
) -> None:
    redis_server.cli("flushall")
    ready = until(cluster, "staging", _SERVICE, 2)
    await with_pods_that_become_ready(cluster, "staging", _SERVICE, ready)
    pods = cluster.http.get(
        "/api/v1/namespaces/staging/pods", params={"labelSelector": f"app={_SERVICE}"}
    ).json()["items"]
    one = pods[0]["metadata"]["name"]
    token = watched_node.token(roles=["mcp:admin"])

    async def verdict(expected: str, endpoints: str) -> dict[str, Any]:
        """Ask until the controllers have followed what the pods say."""

        async def ask() -> dict[str, Any]:
            async with modern_client(watched_node, token) as client:
                answer = await client.call_tool(
                    "monitoring_health_check", {"service": _SERVICE, "namespace": "staging"}
                )
            found = answer.structured_content
            assert found is not None, answer
            said = {each["source"]: each["says"] for each in found["evidence"]}
            return {**said, "verdict": found["verdict"]}

        told: dict[str, Any] = await eventually(
            ask, lambda said: (said["verdict"], said["endpoints"]) == (expected, endpoints)
        )
        return told

    healthy = await verdict("healthy", "2 ready, 0 not ready")
    not_ready = {"conditions": [{"type": "Ready", "status": "False"}]}
    cluster.patch_status("Pod", "staging", one, not_ready)
    degraded = await verdict("degraded", "1 ready, 1 not ready")
    become_ready(cluster, "staging", f"app={_SERVICE}", ready=False)
    unhealthy = await verdict("unhealthy", "0 ready, 2 not ready")

    assert healthy["targets"] == "1 of 1 up"
    assert "1 of 2 ready" in degraded["workloads"]
    assert "0 of 2 ready" in unhealthy["workloads"]


# These stop the API server: last, so that what they leave behind troubles no other test here.
async def test_the_tools_work_again_after_a_restart_of_the_api_server(web: Cluster) -> None:
    async with family(web) as call:
        await call("get_pods", **_HERE)
        with web.api.stopped(), pytest.raises(ToolError, match="main is not available"):
            await call("get_pods", **_HERE)
        assert (await call("get_pods", **_HERE)).pods


async def test_an_open_circuit_closes_once_the_api_server_is_back(
    web: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    async with family(web) as call:
        with web.api.stopped():
            for _ in range(5):
                with pytest.raises(BackendUnavailable):
                    await call("get_deployments", **_HERE)
            with pytest.raises(BackendUnavailable, match="recent calls failed"):
                await call("get_deployments", **_HERE)
        clock.forward(OPEN_S + 1)

        assert (await call("get_deployments", **_HERE)).deployments


async def test_a_waited_restart_survives_a_restart_of_the_api_server(cluster: Cluster) -> None:
    cluster.create(deployment("followed", "development", replicas=1, node=None))
    heard = Heard()
    async with family(cluster, progress=heard) as call, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            call("restart_deployment", **_HERE, deployment="followed", wait_s=60)
        )
        await heard.first.wait()
        await asyncio.sleep(1)
        await asyncio.to_thread(cluster.api.restart)
        result = await with_pods_that_become_ready(cluster, "development", "followed", waiting)

    assert result.state == "complete", result


async def test_a_waited_restart_of_a_cluster_that_went_away_tells_what_is_known(
    cluster: Cluster,
) -> None:
    cluster.create(deployment("left", "development", replicas=1, node=None))
    heard = Heard()
    async with family(cluster, progress=heard) as call, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            call("restart_deployment", **_HERE, deployment="left", wait_s=15)
        )
        await heard.first.wait()
        stopped = cluster.api.stopped()
        await asyncio.to_thread(stopped.__enter__)
        try:
            await asyncio.wait([waiting])
        finally:
            await asyncio.to_thread(stopped.__exit__, None, None, None)

    result = waiting.result()
    assert result.state == "progressing"
    assert "when it was last known; the Kubernetes cluster main is not available" in result.message


async def test_many_that_wait_for_a_rollout_leave_the_tools_to_others(cluster: Cluster) -> None:
    cluster.create(deployment("slow", "development", replicas=1, node=None))
    async with family(cluster) as call, asyncio.TaskGroup() as tasks:
        restart = {**_HERE, "deployment": "slow", "wait_s": 60}
        waiting = []
        for _ in range(4):
            waiting += [tasks.create_task(call("restart_deployment", **restart)) for _ in range(10)]
            await asyncio.sleep(1.5)
        listed = [tasks.create_task(call("get_deployments", **_HERE)) for _ in range(10)]
        await asyncio.wait(listed)
        still = sum(not task.done() for task in waiting)
        for task in waiting:
            task.cancel()

    assert still == len(waiting)
    assert all(task.result().deployments for task in listed)


@pytest.mark.parametrize("cut", [False, True], ids=["at the next page", "within a page"])
async def test_a_cursor_of_a_state_that_is_forgotten_says_start_again(
    cluster: Cluster, cut: bool
) -> None:
    place = f"forgotten-{'within' if cut else 'next'}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}})
    cluster.create(*(pod(f"p-{n}", place) for n in range(3)))
    async with family(cluster) as call:
        page = await call("get_pods", namespace=place, limit=2)
        cursor = page.cursor_after(1) if cut else page.next_cursor
        cluster.create(pod("p-3", place))
        cluster.compact()
        # The API server remembers some states itself until it ends.
        await asyncio.to_thread(cluster.api.restart)
        with pytest.raises(ToolError, match=r"changed too much.*start again without cursor"):
            await call("get_pods", namespace=place, limit=2, cursor=cursor)
