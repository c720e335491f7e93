"""The Kubernetes tools on a real control plane; only the kubelet is simulated."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest

from mcp_server.settings import KubernetesSettings
from mcp_server.tools.catalog import InvalidArguments, ToolContext, ToolError
from mcp_server.tools.kubernetes import kind_names
from mcp_server.tools.kubernetes import service_health as health_module
from mcp_server.tools.kubernetes.family import Kubernetes
from mcp_server.tools.presentation import present
from tests.integration.clusters import Cluster, deployment, pod
from tests.integration.conditions import eventually
from tests.integration.forged import altered
from tests.integration.kubernetes_calls import family, until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Cluster:
    cluster.create(deployment("web", "development", replicas=2))
    return cluster


async def test_deployments_and_pods_are_listed(web: Cluster) -> None:
    await until(web, "development", "web", 2)
    async with family(web) as call:
        deployments = await call("get_deployments", namespace="development")
        pods = await call("get_pods", namespace="development", label_selector="app=web")

    (row,) = deployments.deployments
    assert (row.name, row.desired, row.ready, row.available) == ("web", 2, 2, 2)
    assert row.image == "registry.test/main:1"
    assert [(p.status, p.ready, p.restarts, p.node) for p in pods.pods] == [
        ("Running", "1/1", 0, "node-1")
    ] * 2


async def test_nodes_are_listed_with_their_problems_and_taints(web: Cluster) -> None:
    web.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "worn", "labels": {"node-role.kubernetes.io/worker": ""}},
            "spec": {
                "unschedulable": True,
                "taints": [
                    {"key": "disk", "value": "slow", "effect": "NoExecute"},
                    {"key": "reserved", "effect": "NoSchedule"},
                ],
            },
        }
    )
    pressure = {"type": "MemoryPressure", "status": "True", "reason": "NodeHasLittleMemory"}
    try:
        async with family(web) as call:
            await eventually(
                lambda: call("get_nodes", field_selector="metadata.name=worn"),
                lambda listed: listed.nodes[0].status == "Ready,SchedulingDisabled",
            )
            info = {"kubeletVersion": "v1.37.2"}
            web.patch_status("Node", "", "worn", {"conditions": [pressure], "nodeInfo": info})
            worn = await call("get_nodes", label_selector="node-role.kubernetes.io/worker")
            first = await call("get_nodes", limit=1)
            second = await call("get_nodes", limit=1, cursor=first.next_cursor)
    finally:
        web.delete("Node", "", "worn")

    (node,) = worn.nodes
    assert (node.name, node.roles, node.unschedulable) == ("worn", "worker", True)
    assert node.conditions == ["MemoryPressure=True (NodeHasLittleMemory)"]
    # The API server itself taints a cordoned node.
    assert set(node.taints) >= {"disk=slow:NoExecute", "reserved:NoSchedule"}
    assert node.capacity == node.allocatable == {"cpu": "1k", "memory": "1Ti", "pods": "1M"}
    assert node.version == "v1.37.2"
    assert [each.name for page in (first, second) for each in page.nodes] == ["node-1", "worn"]
    assert (first.nodes[0].status, first.nodes[0].conditions) == ("Ready", [])


@pytest.mark.parametrize(
    ("name", "status", "shown"),
    [
        (
            "crash",
            {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "name": "main",
                        "image": "",
                        "imageID": "",
                        "ready": False,
                        "restartCount": 7,
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    }
                ],
            },
            ("CrashLoopBackOff", "0/1", 7),
        ),
        ("evicted", {"phase": "Failed", "reason": "Evicted"}, ("Evicted", "0/1", 0)),
    ],
)
async def test_a_pod_shows_its_true_state(
    cluster: Cluster, name: str, status: dict[str, Any], shown: tuple[str, str, int]
) -> None:
    cluster.create(pod(name, "staging"))
    cluster.patch_status("Pod", "staging", name, status)

    async with family(cluster) as call:
        listed = await call("get_pods", namespace="staging", field_selector=f"metadata.name={name}")

    (row,) = listed.pods
    assert (row.status, row.ready, row.restarts) == shown


async def test_a_pod_that_is_evicted_is_replaced_and_the_tools_tell_how(cluster: Cluster) -> None:
    place = {"namespace": "evictions"}
    cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "evictions"}},
        deployment("moved", "evictions", replicas=2),
    )
    await until(cluster, "evictions", "moved", 2)
    async with family(cluster) as call:
        evicted, kept = sorted(each.name for each in (await call("get_pods", **place)).pods)
        with cluster.kubelet.stopped():
            cluster.evict("evictions", evicted)
            found = await eventually(
                lambda: call("get_rollout_status", **place, deployment="moved"),
                lambda rollout: (
                    rollout.pods == {"Running": 1, "Pending": 1}
                    and rollout.message == "1 of 2 updated replicas are available"
                ),
            )
            during = await call("get_pods", **place)
        await until(cluster, "evictions", "moved", 2)
        after = await call("get_pods", **place)
        rollout = await call("get_rollout_status", **place, deployment="moved")
        events = await call("get_events", **place, kind="ReplicaSet")

    assert found.state == "progressing"
    (new,) = {each.name for each in during.pods} - {kept}
    assert sorted((each.status, each.ready) for each in during.pods) == [
        ("Pending", "0/1"),
        ("Running", "1/1"),
    ]
    assert {each.name for each in after.pods} == {kept, new}
    assert evicted not in (kept, new)
    assert (rollout.state, rollout.available) == ("complete", 2)
    made = [each.message for each in events.events if each.reason == "SuccessfulCreate"]
    assert sorted(made) == sorted(f"Created pod: {name}" for name in (evicted, kept, new))


async def test_scaling_tells_before_and_after_and_refuses_what_changed(cluster: Cluster) -> None:
    cluster.create(deployment("scaled", "development", replicas=1))
    await until(cluster, "development", "scaled", 1)
    target = {"namespace": "development", "deployment": "scaled"}
    async with family(cluster) as call:
        tried = await call("scale_deployment", **target, replicas=3, dry_run=True)
        done = await call("scale_deployment", **target, replicas=3)
        with pytest.raises(ToolError, match="has 3 replicas, not 1; nothing was changed"):
            await call("scale_deployment", **target, replicas=5, expected_current_replicas=1)

    assert (tried.before, tried.after, tried.dry_run) == (1, 3, True)
    assert (done.before, done.after, done.warning) == (1, 3, None)
    assert cluster.read("Deployment", "development", "scaled")["spec"]["replicas"] == 3


async def test_scaling_warns_of_an_autoscaler(cluster: Cluster) -> None:
    cluster.create(
        deployment("auto", "development", replicas=1),
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "auto-hpa", "namespace": "development"},
            "spec": {
                "maxReplicas": 5,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "auto"},
            },
        },
    )
    async with family(cluster) as call:
        result = await call(
            "scale_deployment", namespace="development", deployment="auto", replicas=2
        )

    assert "auto-hpa" in result.warning


async def test_a_restart_is_waited_for(web: Cluster) -> None:
    await until(web, "development", "web", 2)
    async with family(web) as call:
        result = await call(
            "restart_deployment", namespace="development", deployment="web", wait_s=60
        )

    template = web.read("Deployment", "development", "web")["spec"]["template"]
    annotation = template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"]
    assert annotation == result.restarted_at
    assert result.state == "complete", result


async def test_restarts_within_one_second_are_each_made(
    web: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [datetime(2026, 1, 31, 12, microsecond=each, tzinfo=UTC) for each in (1, 500, 999_999)]
    # However slow the machine is, it is the same second.
    monkeypatch.setattr(
        "mcp_server.tools.kubernetes.restart.datetime", Mock(now=Mock(side_effect=times))
    )
    before = web.read("Deployment", "development", "web")["metadata"]["generation"]
    async with family(web) as call:
        made = [
            await call("restart_deployment", namespace="development", deployment="web")
            for _ in times
        ]

    after = web.read("Deployment", "development", "web")
    assert after["metadata"]["generation"] == before + 3
    assert [each.restarted_at for each in made] == [
        "2026-01-31T12:00:00.000001Z",
        "2026-01-31T12:00:00.000500Z",
        "2026-01-31T12:00:00.999999Z",
    ]
    annotations = after["spec"]["template"]["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/restartedAt"] == made[-1].restarted_at


async def test_a_rollout_that_hangs_says_what_holds_it_up(cluster: Cluster) -> None:
    hanging = deployment("stuck", "staging", replicas=2, node=None, progressDeadlineSeconds=1)
    cluster.create(hanging)
    async with family(cluster) as call:
        result = await eventually(
            lambda: call("get_rollout_status", namespace="staging", deployment="stuck"),
            lambda rollout: rollout.state == "failed",
        )

    assert "progress" in result.message
    assert result.pods == {"Pending": 2}


async def test_logs_are_cut_at_the_api_and_searched(web: Cluster) -> None:
    await until(web, "development", "web", 2)
    web.write_log([f"line {n}" for n in range(300)])
    async with family(web) as call:
        (first, *_) = (await call("get_pods", namespace="development")).pods
        target = {"namespace": "development", "pod_name": first.name}
        tail = await call("get_pod_logs", **target, tail_lines=2)
        found = await call("get_pod_logs", **target, grep="LINE 7", tail_lines=3)

    assert tail.text == "line 298\nline 299"
    assert found.text == "line 77\nline 78\nline 79"


async def test_colours_hide_nothing_of_a_log(web: Cluster) -> None:
    await until(web, "development", "web", 2)
    web.write_log(["plain", "\x1b[1;31mERR\x1b[0m\x1b[31mOR\x1b[0m boom", "\x1b]0;title\x07end"])
    async with family(web) as call:
        (first, *_) = (await call("get_pods", namespace="development")).pods
        target = {"namespace": "development", "pod_name": first.name}
        whole = await call("get_pod_logs", **target)
        found = await call("get_pod_logs", **target, grep="error boom")
        none = await call("get_pod_logs", **target, grep="[31m")
        web.write_log(["plain"])
        plain = await call("get_pod_logs", **target)

    removed = "colours and other escape sequences of terminals are removed"
    assert (whole.text, whole.note) == ("plain\nERROR boom\nend", removed)
    assert (found.text, found.note) == ("ERROR boom", removed)
    assert none.lines == 0
    assert (plain.text, plain.note) == ("plain", None)


def event(number: int, **fields: Any) -> dict[str, Any]:
    """An event of the pod `p-1` that happened `number` minutes past twelve."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"e{9 - number}", "namespace": "events"},
        "involvedObject": {"kind": "Pod", "name": "p-1", "namespace": "events"},
        "type": "Warning",
        "reason": f"Reason{number}",
        "message": "Back-off restarting failed container",
        "lastTimestamp": f"2026-11-20T12:0{number}:00Z",
        "count": number,
        **fields,
    }


@pytest.fixture(scope="module")
def eventful(cluster: Cluster) -> Cluster:
    cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "events"}},
        *(event(number) for number in (2, 5, 1, 4)),
        event(
            3,
            type="Normal",
            involvedObject={"kind": "Node", "name": "n-1", "namespace": "events"},
        ),
    )
    return cluster


async def test_events_come_newest_first_and_page_without_loss(eventful: Cluster) -> None:
    reasons: list[str] = []
    cursor = None
    async with family(eventful) as call:
        while True:
            page = await call("get_events", namespace="events", limit=2, cursor=cursor)
            assert page.total == 5
            reasons += [row.reason for row in page.events]
            cursor = page.next_cursor
            if cursor is None:
                break

    assert reasons == [f"Reason{number}" for number in (5, 4, 3, 2, 1)]


@pytest.mark.parametrize(
    ("filters", "reasons"),
    [
        ({"type": "Normal"}, ["Reason3"]),
        ({"kind": "Node", "name": "n-1"}, ["Reason3"]),
        *(({"kind": kind}, ["Reason3"]) for kind in ("node", "NODES", "no", "No")),
        *(
            ({"kind": kind}, ["Reason5", "Reason4", "Reason2", "Reason1"])
            for kind in ("Pod", "pod", "pods", "Pods", "po")
        ),
        ({"kind": "CronJob"}, []),
        ({"kind": "storageclasses"}, []),
        ({"name": "p-1", "type": "Warning"}, ["Reason5", "Reason4", "Reason2", "Reason1"]),
        ({"name": "absent"}, []),
    ],
)
async def test_events_are_chosen_by_object_and_type(
    eventful: Cluster, filters: dict[str, str], reasons: list[str]
) -> None:
    async with family(eventful) as call:
        listed = await call("get_events", namespace="events", **filters)

    assert [row.reason for row in listed.events] == reasons


async def test_a_custom_kind_goes_by_its_names_too(cluster: Cluster) -> None:
    singular_and_short = {"singular": "k8swidget", "shortNames": ["wdg"]}
    names = {"kind": "K8sWidget", "plural": "k8swidgets", **singular_and_short}
    schema = {"openAPIV3Schema": {"type": "object"}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "k8swidgets.example.com"},
        "spec": {
            "group": "example.com",
            "names": names,
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    cluster.create(
        definition,
        event(
            1,
            metadata={"name": "of-a-widget", "namespace": "staging"},
            involvedObject={"kind": "K8sWidget", "name": "w-1", "namespace": "staging"},
        ),
    )
    async with family(cluster) as call:

        async def listed(kind: str) -> Any:
            try:
                return await call("get_events", namespace="staging", kind=kind)
            except InvalidArguments:  # the API server has not taken the definition up yet
                return None

        first = await eventually(lambda: listed("wdg"), bool)
        others = [await listed(kind) for kind in ("K8sWidget", "k8swidgets", "K8SWIDGET")]
        with pytest.raises(InvalidArguments) as refused:
            await call("get_events", namespace="staging", kind="k8swidgit")

    for found in (first, *others):
        assert [each.object for each in found.events] == ["K8sWidget/w-1"]
    assert str(refused.value) == (
        "kind: the Kubernetes cluster main has no kind k8swidgit; near: K8sWidget"
    )


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("pdo", "near: Pod"),
        ("deploymnet", "near: Deployment"),
        ("zzzzzz", "a kind is such as Pod, pods or po"),
    ],
)
async def test_a_kind_that_the_cluster_lacks_is_refused_with_the_near_ones(
    eventful: Cluster, kind: str, hint: str
) -> None:
    async with family(eventful) as call:
        with pytest.raises(InvalidArguments) as refused:
            await call("get_events", namespace="events", kind=kind)

    assert str(refused.value).startswith(
        f"kind: the Kubernetes cluster main has no kind {kind}; {hint}"
    )


async def test_kinds_that_need_no_question_are_those_of_the_cluster(cluster: Cluster) -> None:
    accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    core, groups = (cluster.http.get(path, headers=accept).json() for path in ("/api", "/apis"))
    told = dict(reversed([*kind_names.named(core), *kind_names.named(groups)]))

    assert told.items() >= kind_names.BUILT_IN.items()
    # Whatever the list of the groups does not hold is known.
    listable = {
        resource["responseKind"]["kind"]
        for group in core["items"]
        for version in group["versions"]
        for resource in version["resources"]
        if "list" in resource["verbs"]
    }
    assert listable <= set(kind_names.BUILT_IN.values())


def _pull_error(repository: str) -> str:
    """What containerd says where a registry's token server refuses: the cause is at the end."""
    image = f"{repository}/checkout-service:2026.11.20-rc1"
    scope = f"repository%3A{repository.partition('/')[2]}%2Fcheckout-service%3Apull"
    return (
        f'Failed to pull image "{image}": failed to pull and unpack image "{image}": failed to resolve '
        f'reference "{image}": failed to authorize: failed to fetch anonymous token: unexpected status '
        f"from GET request to https://auth.registry.test/token?scope={scope}&service=registry.test: "
        "403 Forbidden"
    )


@pytest.mark.parametrize(
    ("name", "repository", "cut"),
    [("short", "registry.test/shop", False), ("long", f"registry.test/{'shop/' * 20}api", True)],
)
async def test_why_an_image_cannot_be_pulled_is_read_to_the_end(
    eventful: Cluster, name: str, repository: str, cut: bool
) -> None:
    place, said = f"pulls-{name}", _pull_error(repository)
    about = {"kind": "Pod", "name": "p-1", "namespace": place}
    eventful.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}},
        event(1, metadata={"name": "e1", "namespace": place}, involvedObject=about, message=said),
    )
    kubernetes = Kubernetes(KubernetesSettings(clusters={"main": eventful.settings()}))
    (tool,) = (each for each in kubernetes.tools() if each.name == "k8s:get_events")
    arguments = tool.parse({"namespace": place})
    await kubernetes.start()
    try:
        result = await tool.run(arguments, ToolContext(user="alice", tenant="default"))
    finally:
        await kubernetes.stop()
    presented = present(tool, arguments, result)

    for shown in (presented.structured["events"][0]["message"], presented.text):
        assert f'Failed to pull image "{repository[:40]}' in shown
        assert "request to https://auth.registry.test/token?" in shown or cut
        assert "registry.test: 403 Forbidden" in shown
        assert (" … " in shown) is cut
    assert len(presented.structured["events"][0]["message"]) <= 500


async def test_what_a_controller_reports_is_read(web: Cluster) -> None:
    await until(web, "development", "web", 2)
    async with family(web) as call:
        listed = await call("get_events", namespace="development", kind="Deployment", name="web")

    row = listed.events[-1]
    assert (row.reason, row.object, row.type) == ("ScalingReplicaSet", "Deployment/web", "Normal")
    assert "Scaled up replica set" in row.message


async def service_health(
    cluster: Cluster, service: str, namespace: str = "staging", token: str = "server"
) -> Any:
    kubernetes = Kubernetes(KubernetesSettings(clusters={"main": cluster.settings(token)}))
    await kubernetes.start()
    try:
        return await kubernetes.service_health(
            ToolContext(user="alice", tenant="default"),
            cluster=None,
            namespace=namespace,
            service=service,
        )
    finally:
        await kubernetes.stop()


def service(name: str, selector: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "staging"},
        "spec": {"selector": selector, "ports": [{"port": 80}]},
    }


async def test_the_health_of_a_service_counts_workloads_and_endpoints(cluster: Cluster) -> None:
    cluster.create(
        service("shop", {"app": "shop-backend"}),
        deployment("shop-backend", "staging", replicas=2),
        deployment("unrelated", "staging", replicas=1),
    )
    await until(cluster, "staging", "shop-backend", 2)
    found = await eventually(
        lambda: service_health(cluster, "shop"), lambda health: health.endpoints_ready == 2
    )

    assert (found.endpoints_ready, found.endpoints_not_ready) == (2, 0)
    (workload,) = found.workloads
    assert workload.model_dump() == {
        "kind": "Deployment",
        "name": "shop-backend",
        "desired": 2,
        "ready": 2,
        "problem": None,
    }


async def test_an_endpoint_on_its_way_out_is_no_fault_of_the_service(cluster: Cluster) -> None:
    labels = {"app": "shrinking"}
    held = {"labels": labels, "finalizers": ["registry.test/held"]}
    cluster.create(
        service("shrinking", labels),
        pod("shrinking-0", "staging", node="node-1", metadata={"labels": labels}),
        pod("shrinking-1", "staging", node="node-1", metadata=held),
    )

    def leaving() -> list[bool]:
        slices = cluster.read("EndpointSlice", "staging")["items"]
        return [
            endpoint["conditions"].get("terminating", False)
            for each in slices
            if each["metadata"]["labels"].get("kubernetes.io/service-name") == "shrinking"
            for endpoint in each.get("endpoints") or ()
        ]

    async def health() -> Any:
        found = await service_health(cluster, "shrinking")
        return sorted(leaving()), found.endpoints_ready, found.endpoints_not_ready

    await eventually(health, lambda seen: seen == ([False, False], 2, 0))
    cluster.delete("Pod", "staging", "shrinking-1")
    try:
        await eventually(health, lambda seen: seen[0] == [False, True])
        seen = await health()
    finally:
        cluster.patch("Pod", "staging", "shrinking-1", {"metadata": {"finalizers": None}})

    assert seen == ([False, True], 1, 0)


async def test_a_workload_that_is_not_as_desired_says_why(cluster: Cluster) -> None:
    cluster.create(deployment("homeless", "staging", replicas=1, node=None))
    found = await eventually(
        lambda: service_health(cluster, "homeless"),
        lambda health: "0 of 1 updated" in (health.workloads[0].problem or ""),
    )

    assert (found.workloads[0].desired, found.workloads[0].ready) == (1, 0)
    assert found.endpoints_ready is None


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
async def test_other_workloads_behind_a_service_are_seen(cluster: Cluster, kind: str) -> None:
    name, labels = f"of-{kind.lower()}", {"app": f"pods-of-{kind.lower()}"}
    described = deployment(name, "staging", node=None)
    spec = {"template": described["spec"]["template"], "selector": {"matchLabels": labels}}
    spec["template"]["metadata"]["labels"] = labels
    if kind == "StatefulSet":
        spec |= {"replicas": 2, "serviceName": name, "podManagementPolicy": "Parallel"}
    else:
        # Nobody here takes away the taint that a new node has.
        spec["template"]["spec"]["tolerations"] = [{"operator": "Exists"}]
    cluster.create(service(name, labels), {**described, "kind": kind, "spec": spec})
    expected = (2, 2, None) if kind == "StatefulSet" else (1, 1, None)
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}

    async def ask() -> Any:
        for each in cluster.read("Pod", "staging")["items"]:
            if each["metadata"].get("labels", {}).get("app") == labels["app"]:
                cluster.patch_status("Pod", "staging", each["metadata"]["name"], ready)
        (workload,) = (await service_health(cluster, name)).workloads
        return workload

    workload = await eventually(
        ask, lambda found: (found.desired, found.ready, found.problem) == expected
    )

    assert (workload.kind, workload.name) == (kind, name)


async def test_what_the_cluster_does_not_allow_to_see_is_said(cluster: Cluster) -> None:
    """An account that may see Deployments and Services alone, in one namespace."""
    api, place = "rbac.authorization.k8s.io", {"namespace": "half-seen"}
    rules = [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get"]},
    ]
    cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "half-seen"}},
        {
            "apiVersion": f"{api}/v1",
            "kind": "Role",
            "metadata": {"name": "half", **place},
            "rules": rules,
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "half", **place},
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "half"},
            "subjects": [{"apiGroup": api, "kind": "User", "name": "nobody"}],
        },
        deployment("half", "half-seen", replicas=0),
        {**service("half", {"app": "half"}), "metadata": {"name": "half", **place}},
    )

    found = await service_health(cluster, "half", "half-seen", token="nobody")
    nothing = await service_health(cluster, "half", "staging", token="nobody")

    assert [workload.name for workload in found.workloads] == ["half"]
    assert not found.endpoints_checked
    assert [said.partition(":")[0] for said in found.not_checked] == [
        "DaemonSets",
        "StatefulSets",
        "its endpoints",
    ]
    assert "does not allow this server" in found.not_checked[0]
    assert (nothing.workloads, len(nothing.not_checked)) == ([], 4)


async def test_no_more_workloads_are_looked_at_than_is_said(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "_PAGE", 2)
    monkeypatch.setattr(health_module, "_MAX_OBJECTS", 4)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "many"}})
    cluster.create(*(deployment(f"d-{n}", "many", replicas=0) for n in range(6)))

    found = await service_health(cluster, "d-5", "many")

    assert [workload.name for workload in found.workloads] == ["d-5"]
    assert found.not_checked == ("Deployments beyond the first 4",)


async def test_a_service_that_is_not_there_has_nothing(cluster: Cluster) -> None:
    found = await service_health(cluster, "absent")

    assert (found.workloads, found.endpoints_ready) == ([], None)


@pytest.fixture(scope="module")
def numbered(cluster: Cluster) -> Cluster:
    cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "numbered"}},
        *(pod(f"n-{number:02}", "numbered") for number in range(30)),
    )
    return cluster


def api_token(**fields: Any) -> str:
    """What the API server would give as the token of a next page, said by somebody else."""
    text = json.dumps({"v": "meta.k8s.io/v1", **fields})
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def test_rows_beyond_what_the_policy_lets_come_on_further_pages(numbered: Cluster) -> None:
    seen: list[str] = []
    cursor = None
    async with family(numbered, max_items=7) as call:
        while True:
            page = await call("get_pods", namespace="numbered", limit=500, cursor=cursor)
            assert len(page.pods) <= 7
            seen += [row.name for row in page.pods]
            cursor = page.next_cursor
            if cursor is None:
                break

    assert seen == [f"n-{number:02}" for number in range(30)]


LONGEST = [f"{'long-name-' * 25}{number:03}" for number in range(3)]


@pytest.fixture(scope="module")
def longest(cluster: Cluster) -> Cluster:
    """Three pods whose names and namespace are as long as they can be."""
    place, labels = "n" * 63, {"labels": {"length": "longest"}}
    cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}},
        *(pod(name, place, metadata=labels) for name in LONGEST),
    )
    return cluster


@pytest.mark.parametrize("place", [{"namespace": "n" * 63}, {"all_namespaces": True}])
async def test_the_longest_names_there_can_be_are_paged(
    longest: Cluster, place: dict[str, Any]
) -> None:
    seen: list[str] = []
    cursor = None
    async with family(longest) as call:
        while True:
            page = await call(
                "get_pods", **place, label_selector="length=longest", limit=1, cursor=cursor
            )
            seen += [row.name for row in page.pods]
            cursor = page.next_cursor
            if cursor is None:
                break

    assert seen == LONGEST


@pytest.mark.parametrize("changes", [{"size": 500}, {"size": 500, "skip": 1}])
async def test_a_forged_cursor_gets_no_more_than_the_policy_lets(
    numbered: Cluster, changes: dict[str, int]
) -> None:
    async with family(numbered, max_items=7) as call:
        page = await call("get_pods", namespace="numbered", limit=5)
        got = await call(
            "get_pods", namespace="numbered", cursor=altered(page.next_cursor, **changes)
        )
        smaller = await call(
            "get_pods", namespace="numbered", limit=2, cursor=altered(page.next_cursor, **changes)
        )

    first = 5 + changes.get("skip", 0)
    assert [row.name for row in got.pods] == [f"n-{first + n:02}" for n in range(7)]
    assert got.truncated
    assert len(smaller.pods) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"token": api_token(rv=-1, start="../staging/")},
        {"token": api_token(rv=-1, start="../../pods/")},
        {"token": api_token(rv=2**40, start="n-00")},
        {"token": "x"},
        {"token": "", "version": str(2**40)},
    ],
)
async def test_a_forged_state_or_place_is_refused_and_stops_no_tools(
    numbered: Cluster, changes: dict[str, str]
) -> None:
    async with family(numbered) as call:
        page = await call("get_pods", namespace="numbered", limit=5)
        for _ in range(6):
            with pytest.raises(ToolError, match=r"continue token|start again without cursor"):
                await call(
                    "get_pods", namespace="numbered", cursor=altered(page.next_cursor, **changes)
                )
        assert (await call("get_pods", namespace="numbered")).pods


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("wrong", "does not accept this server's credentials"),
        ("nobody", "does not allow this server"),
    ],
)
async def test_a_refusal_names_the_cluster_and_what_to_do(
    cluster: Cluster, token: str, said: str
) -> None:
    async with family(cluster, token) as call:
        with pytest.raises(ToolError, match=said) as refused:
            await call("get_pods", namespace="development")

    assert "cluster main" in str(refused.value)


async def test_what_is_not_there_is_named(cluster: Cluster) -> None:
    async with family(cluster) as call:
        with pytest.raises(ToolError, match="has no deployment absent in namespace staging"):
            await call("get_rollout_status", namespace="staging", deployment="absent")
        with pytest.raises(InvalidArguments, match="there is no cluster of that name; known: main"):
            await call("get_pods", cluster="other")


async def test_too_many_requests_are_told_apart_from_an_outage(cluster: Cluster) -> None:
    async with family(cluster, "throttled") as call:
        with (
            cluster.busy("throttled"),
            pytest.raises(ToolError, match="limits requests; try again") as refused,
        ):
            await call("get_pods", namespace="development")

    assert refused.value.retryable


async def test_impersonation_makes_the_clusters_rules_a_second_lock(web: Cluster) -> None:
    async with family(web, "impersonator", impersonate=True, user="alice") as call:
        assert (await call("get_pods", namespace="development")).pods
        with pytest.raises(ToolError, match="does not allow you"):
            await call("get_pods", namespace="staging")
    async with family(web, "impersonator", impersonate=True, user="bob") as call:
        with pytest.raises(ToolError, match="does not allow you"):
            await call("get_pods", namespace="development")
    async with family(
        web, "impersonator", impersonate=True, user="bob", groups=("team-a", "system:masters")
    ) as call:
        assert (await call("get_pods", namespace="development")).pods
        with pytest.raises(ToolError, match="does not allow you"):
            await call("get_pods", namespace="staging")
