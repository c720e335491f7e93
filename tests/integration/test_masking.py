"""What the policy masks is told by no part of an answer: every tool, document and completion.

The policy is played, so that each field and each label of a result can be masked alone; what is asked is
real: PostgreSQL, Prometheus, Alertmanager, a Kubernetes control plane, and the fake Grafana.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from mcp_server.audit.store import AuditStore
from mcp_server.cli.generate.policy_catalog import every_resource, every_tool
from mcp_server.gate import Caller, Failed, Gate, ToolAnswer, call_tool
from mcp_server.gate.resource_reads import CallerResource, Resources
from mcp_server.identity import Subject
from mcp_server.infrastructure.database import Database
from mcp_server.policy import Authorization, Counters, PolicyEngine
from mcp_server.prompts import PROMPTS, Prompts
from mcp_server.redaction import MASK
from mcp_server.settings import KubernetesSettings, MonitoringSettings
from mcp_server.tools.catalog import Catalog, InvalidArguments, Result, Tool, ToolContext, ToolError
from mcp_server.tools.cmdb.family import Cmdb
from mcp_server.tools.cmdb.model import AssetStatus, StatusChange
from mcp_server.tools.cmdb.postgres import PostgresCmdb
from mcp_server.tools.kubernetes.family import Kubernetes
from mcp_server.tools.monitoring import query_metrics
from mcp_server.tools.monitoring.family import Monitoring
from mcp_server.tools.resources import Resource
from tests.integration.clusters import Cluster, deployment
from tests.integration.cmdb_imports import import_rows
from tests.integration.fake_grafana import EDITOR_TOKEN, FakeGrafana
from tests.integration.kubernetes_calls import until
from tests.integration.servers import Alertmanager, Prometheus

pytestmark = pytest.mark.anyio

_numbers = itertools.count(1)
_PLACE = {"namespace": "hideout"}
# Nothing listens on the port of discarded traffic.
_DOWN = "127.0.0.1:9"


class _Policy:
    """Allows everything, and masks these names."""

    names: tuple[str, ...] = ()

    revision = "played"

    async def authorize(self, *_: object) -> Authorization:
        obligations = [{"type": "redact", "fields": list(self.names)}]
        return Authorization.model_validate(
            {
                "version": 2,
                "revision": "played",
                "effect": "allow",
                "reasons": [],
                "charges": [],
                "obligations": obligations,
                "retry_after_ms": 0,
                "quota": [],
            }
        )


class _Audit:
    healthy = True

    async def commit(self, _: object) -> None:
        """Keep nothing."""


class _Counters:
    up = True


class World:
    """A gate over all families, and what it gives.

    Attributes:
        results: what tools gave before the obligations, the last one last.
    """

    def __init__(self, tools: list[Tool[Any, Any]], resources: Resources) -> None:
        self.policy = _Policy()
        self.resources = resources
        self.results: list[Result] = []
        self.gate = Gate(
            node="test",
            policy=cast(PolicyEngine, self.policy),
            counters=cast(Counters, _Counters()),
            audit=cast(AuditStore, _Audit()),
            catalog=Catalog(
                dataclasses.replace(tool, run=self._recording(tool.run)) for tool in tools
            ),
        )
        self.prompts = Prompts(PROMPTS, self.gate.catalog)
        self.caller = Caller(
            Subject(id="alice", tenant="default", roles=(), issuer="shared-secret"),
            "192.0.2.1",
            "test",
            "r-1",
            "mcp",
        )

    def _recording(self, run: Callable[..., Any]) -> Callable[..., Any]:
        async def recorded(arguments: Any, context: ToolContext) -> Any:
            result = await run(arguments, context)
            self.results.append(result)
            return result

        return recorded

    async def call(self, tool: str, masked: tuple[str, ...], arguments: Any) -> ToolAnswer:
        self.policy.names = masked
        wire_name = tool.replace(":", "_")
        return (await call_tool(self.gate, self.caller, wire_name, arguments)).value

    async def refusal(self, tool: str, masked: tuple[str, ...], arguments: Any) -> str:
        answer = await self.call(tool, masked, arguments)
        assert answer.is_error
        return answer.text

    async def read(self, uri: str, masked: tuple[str, ...]) -> str:
        self.policy.names = masked
        return (await self.resources.read(self.gate, self.caller, uri)).value.text

    async def complete(
        self, uri: str, parameter: str, masked: tuple[str, ...], **given: str
    ) -> tuple[str, ...]:
        self.policy.names = masked
        found = await self.resources.complete(
            self.gate, self.caller, uri, parameter, "", given=given
        )
        return found.values

    async def complete_prompt(
        self, name: str, argument: str, masked: tuple[str, ...], **given: str
    ) -> tuple[str, ...]:
        self.policy.names = masked
        found = await self.prompts.complete(
            self.gate,
            self.caller,
            name,
            argument,
            "",
            given=given,
            resources=self.resources,
        )
        return found.values


RULES = [
    {
        "alert": name,
        "expr": "vector(1)",
        "labels": {
            "severity": "critical",
            "job": "cashier",
            "instance": f"till-{number}.example.com:9100",
            "rack": f"rack-{number}",
            "api_token": f"t0ken-{number}",
        },
        "annotations": {
            "summary": "{{ $labels.alertname }}: {{ $labels.instance }} in {{ $labels.rack }} is away, "
            f"seen by till-{number}.example.com"
        },
    }
    for number, name in enumerate(("TillAway", "TillLost"), start=1)
]


def _past() -> str:
    values = [
        f'till_sales_euros{{till="{till}",store="{store}"}} {value}'
        for till, store, value in (("first", "Lyon", 1234.5), ("second", "Graz", 987654))
    ]
    return "\n".join(["# TYPE till_sales_euros gauge", *values, "# EOF\n"])


@pytest.fixture(scope="module")
def hidden_alertmanager(workspace: Path) -> Iterator[Alertmanager]:
    server = Alertmanager(workspace / "alertmanager-hidden")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def hidden_prometheus(workspace: Path, hidden_alertmanager: Alertmanager) -> Iterator[Prometheus]:
    exporter = {
        "job_name": "cashier",
        "static_configs": [{"targets": [f"127.0.0.1:{hidden_alertmanager.port}", _DOWN]}],
    }
    server = Prometheus(
        workspace / "prometheus-hidden", hidden_alertmanager, rules=RULES, jobs=[exporter]
    )
    server.start()
    server.wait_until_alerts_arrive(hidden_alertmanager, 2)
    server.wait_until_scraped(3)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def hidden_grafana(workspace: Path) -> Iterator[FakeGrafana]:
    server = FakeGrafana(workspace / "grafana-hidden", duplicates=True)
    server.start()
    (workspace / "grafana-hidden-token").write_text(EDITOR_TOKEN)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def hideout(cluster: Cluster) -> Cluster:
    """A deployment that is ready, one whose rollout hangs, with its autoscaler, and one to restart."""
    cluster.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hideout"}},
        deployment("counter", "hideout", replicas=2),
        deployment("cellar", "hideout", replicas=3, node=None),
        deployment("attic", "hideout", replicas=3, node=None),
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "lift", "namespace": "hideout"},
            "spec": {
                "minReplicas": 1,
                "maxReplicas": 9,
                "scaleTargetRef": {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": "cellar",
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "fell", "namespace": "hideout"},
            "involvedObject": {"kind": "Pod", "name": "counter-0", "namespace": "hideout"},
            "reason": "FellOver",
            "type": "Warning",
            "message": "it fell over",
            "count": 4711,
            "lastTimestamp": "2026-01-31T00:00:00Z",
        },
    )
    cluster.write_log(["the till is open", "the till is closed"])
    return cluster


ASSETS = [
    {
        "id": "ci-4711",
        "name": "till server of Lyon",
        "type": "server",
        "environment": "staging",
        "status": "active",
        "ip_address": "10.9.8.7",
        "owner": "shop@example.com",
    },
    {
        "id": "ci-4712",
        "name": "ledger",
        "type": "database",
        "environment": "prod",
        "status": "inactive",
        "ip_address": "10.9.8.8",
        "owner": "bank@example.com",
    },
]
RELATIONS = [{"from": "ci-4711", "to": "ci-4712", "type": "depends_on"}]


@pytest.fixture
async def world(
    monkeypatch: pytest.MonkeyPatch,
    workspace: Path,
    database: Database,
    owner: asyncpg.Connection,
    hideout: Cluster,
    hidden_prometheus: Prometheus,
    hidden_alertmanager: Alertmanager,
    hidden_grafana: FakeGrafana,
) -> AsyncIterator[World]:
    # A hint that comes late is left out, and these tests are about what a hint tells.
    monkeypatch.setattr(query_metrics, "_HINT_S", 60.0)
    backend = PostgresCmdb(database)
    await import_rows(owner, ASSETS, RELATIONS)
    changed = [{**ASSETS[0], "ip_address": "10.9.8.9", "owner": "market@example.com"}]
    await import_rows(owner, changed)
    await backend.update_status(
        "default",
        "ci-4711",
        StatusChange(
            status=AssetStatus.MAINTENANCE,
            reason="handed over",
            user="carol",
            request_id="request-4711",
        ),
    )
    await until(hideout, "hideout", "counter", 2)
    kubernetes = Kubernetes(KubernetesSettings(clusters={"main": hideout.settings()}))
    settings = {
        "prometheus_url": hidden_prometheus.url,
        "alertmanager_url": hidden_alertmanager.url,
        "grafana": {
            "url": hidden_grafana.url,
            "token": {"file": str(workspace / "grafana-hidden-token")},
            "datasource_uid": "prom",
        },
    }
    monitoring = Monitoring(MonitoringSettings.model_validate(settings), workloads=kubernetes)
    families: list[Kubernetes | Monitoring | Cmdb] = [kubernetes, monitoring, Cmdb(backend)]
    await kubernetes.start()
    await monitoring.start()
    try:
        yield World(
            [tool for family in families for tool in family.tools()],
            Resources(document for family in families for document in family.resources()),
        )
    finally:
        await monitoring.stop()
        await kubernetes.stop()


def _dashboard() -> dict[str, Any]:
    # A title may be taken once only.
    panels = [{"query": "absent_metric", "title": "Sales"}]
    return {"title": f"Till board {next(_numbers)}", "panels": panels, "folder": "ops"}


def _status() -> dict[str, Any]:
    return {
        "asset_id": "ci-4711",
        "status": ("inactive", "maintenance")[next(_numbers) % 2],
        "reason": "a test",
    }


# A call of every tool, and names besides those of its fields that the policy may mask: what it makes
# of them in other words is masked too.
CALLS: dict[str, tuple[Callable[[], dict[str, Any]], tuple[str, ...]]] = {
    "k8s:get_pods": (lambda: {**_PLACE, "limit": 1}, ()),
    "k8s:get_deployments": (lambda: {**_PLACE, "limit": 1}, ()),
    "k8s:get_nodes": (lambda: {"limit": 1}, ()),
    "k8s:get_events": (lambda: {**_PLACE, "limit": 1}, ()),
    "k8s:get_rollout_status": (lambda: {**_PLACE, "deployment": "cellar"}, ()),
    "k8s:get_pod_logs": (lambda: {**_PLACE, "pod_name": POD[0]}, ()),
    "k8s:scale_deployment": (
        lambda: {**_PLACE, "deployment": "cellar", "replicas": 4321, "dry_run": True},
        (),
    ),
    "k8s:restart_deployment": (lambda: {**_PLACE, "deployment": "attic", "wait_s": 1}, ()),
    "monitoring:query_metrics": (
        lambda: {
            "query": 'label_replace(up{job="cashier"}, "till", "first", "", "") * 1234.5',
            "limit": 1,
            "samples": True,
            "time_range": "4s",
        },
        (),
    ),
    "monitoring:list_metrics": (lambda: {"contains": "alertmanager_alerts_inv", "limit": 1}, ()),
    "monitoring:get_alerts": (lambda: {"group_by": "instance", "limit": 1}, ()),
    "monitoring:health_check": (lambda: {"service": "cashier", **_PLACE}, ()),
    "monitoring:create_dashboard": (_dashboard, ("title",)),
    "cmdb:query_assets": (lambda: {"limit": 1}, ()),
    "cmdb:get_service_topology": (lambda: {"service_name": "ci-4711"}, ()),
    "cmdb:update_asset_status": (_status, ()),
    "cmdb:get_change_records": (lambda: {"asset_id": "ci-4711", "limit": 2}, ()),
}
POD: list[str] = [""]


def _names(value: Any) -> Iterator[str]:
    """Yield the names of all fields and labels."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)


def _leaves(value: Any, name: str, masked: tuple[str, ...]) -> Iterator[tuple[str, str, bool]]:
    """Yield the name that each value stands under, the value, and whether it is masked there."""
    if isinstance(value, dict):
        for key, item in value.items():
            hidden = key in masked
            for inner, leaf, within in _leaves(item, key, masked):
                yield inner, leaf, hidden or within
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, name, masked)
    elif value is not None and not isinstance(value, bool):
        yield name, str(value), False


def _told(answer: ToolAnswer) -> str:
    """Return all that an answer tells, what its cursor holds too."""
    structured = answer.structured or {}
    cursor = structured.get("next_cursor")
    held = b""
    if cursor is not None and cursor != MASK:
        held = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    shown = {key: value for key, value in structured.items() if key != "next_cursor"}
    text = answer.text if cursor is None else answer.text.replace(str(cursor), "")
    return json.dumps(shown, ensure_ascii=False) + text + held.decode(errors="replace")


def _secrets(
    tool: Tool[Any, Any] | Resource, result: Any, masked: tuple[str, ...], arguments: Any
) -> set[str]:
    """Return the values that an answer may not tell.

    Its caller may know what it said itself, and what stands elsewhere under the same name, or one that
    means the same, where that is not masked: an asset after its change, where only `before` is.
    """
    said = json.dumps(arguments)
    leaves = set(_leaves(result, "", masked))
    same = {(name, name) for name, _, _ in leaves}
    same |= {
        pair
        for one, others in tool.revealed_by.items()
        for pair in itertools.product([one], others)
    }
    same |= {(other, one) for one, other in same}
    shown = {(name, leaf) for name, leaf, hidden in leaves if not hidden}
    return {
        leaf
        for name, leaf, hidden in leaves
        if hidden and not any((other, leaf) in shown for one, other in same if one == name)
        # Shorter ones stand in any text by chance.
        if len(leaf) > 3 and leaf not in said and leaf != MASK
    }


@pytest.fixture
async def pod(hideout: Cluster) -> None:
    pods = hideout.read("Pod", "hideout")["items"]
    POD[0] = next(
        each["metadata"]["name"] for each in pods if "counter" in each["metadata"]["name"]
    )


def test_every_tool_is_called() -> None:
    assert set(CALLS) == {tool.name for tool in every_tool()}


@pytest.mark.parametrize("tool", CALLS)
@pytest.mark.usefixtures("pod")
async def test_a_tool_tells_nothing_of_what_is_masked(world: World, tool: str) -> None:
    arguments, more = CALLS[tool]
    (declared,) = (each for each in world.gate.catalog if each.name == tool)
    whole = await world.call(tool, (), arguments())
    assert not whole.is_error, whole.text
    names = tuple(dict.fromkeys(_names(whole.structured)))
    leaked = []
    hid = 0
    for masked in (*((name,) for name in (*names, *more)), (*names, *more)):
        given = arguments()
        answer = await world.call(tool, masked, given)
        raw = world.results[-1].model_dump(mode="json")
        told = _told(answer)
        secrets = _secrets(declared, raw, masked, given)
        hid += len(secrets)
        leaked += [(masked[:3], secret) for secret in secrets if secret in told]
        assert not answer.is_error, answer.text

    assert leaked == []
    assert hid > 0


# What a tool makes of a value in other words: its arguments, what is masked, and what then is not told.
OTHER_WORDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("k8s:get_rollout_status", {**_PLACE, "deployment": "cellar"}, "status", "Pending"),
    ("k8s:get_rollout_status", {**_PLACE, "deployment": "cellar"}, "available", "0 of 3"),
    ("k8s:get_events", {**_PLACE, "type": "Warning"}, "name", "counter-0"),
    ("k8s:get_events", {**_PLACE, "type": "Warning"}, "kind", "Pod/"),
    (
        "k8s:scale_deployment",
        {**_PLACE, "deployment": "cellar", "replicas": 3, "dry_run": True},
        "name",
        "lift",
    ),
    ("monitoring:get_alerts", {"group_by": "instance"}, "instance", "till-1"),
    ("monitoring:get_alerts", {"group_by": "rack"}, "labels", "rack-1 |"),
    ("monitoring:get_alerts", {"group_by": "alertname"}, "name", "TillAway"),
    ("monitoring:get_alerts", {"group_by": "api_token"}, "nothing", "t0ken-1"),
    ("monitoring:query_metrics", {"query": "alertmanager_alert"}, "__name__", "near: "),
    ("monitoring:query_metrics", {"query": "alertmanager_alert"}, "name", "near: "),
    ("monitoring:list_metrics", {"contains": "alertmanager_alerz"}, "name", "near: "),
    ("monitoring:health_check", {"service": "cashier"}, "instance", _DOWN),
    ("monitoring:health_check", {"service": "cashier"}, "name", "TillAway"),
    ("monitoring:health_check", {"service": "cashier"}, "alertname", "TillAway"),
    ("monitoring:health_check", {"service": "cellar", **_PLACE}, "name", "Deployment cellar"),
    ("monitoring:health_check", {"service": "cellar", **_PLACE}, "kind", "Deployment"),
    ("monitoring:health_check", {"service": "cellar", **_PLACE}, "ready", "0 of 3"),
    ("monitoring:health_check", {"service": "cellar", **_PLACE}, "message", "are available"),
    ("cmdb:get_change_records", {"asset_id": "ci-4711"}, "ip_address", "10.9.8."),
    ("cmdb:get_service_topology", {"service_name": "ci-4711"}, "id", "ci-4712"),
]


@pytest.mark.parametrize(("tool", "arguments", "masked", "word"), OTHER_WORDS)
async def test_a_tool_tells_it_in_no_other_words(
    world: World, tool: str, arguments: dict[str, Any], masked: str, word: str
) -> None:
    plain = await world.call(tool, ("unheard_of",), arguments)
    answer = await world.call(tool, (masked,), arguments)

    assert masked == "nothing" or word in _told(plain)
    assert word not in _told(answer)
    assert not answer.is_error


async def test_counts_by_a_masked_label_are_one_count(world: World) -> None:
    answer = await world.call("monitoring:get_alerts", ("rack",), {"group_by": "rack"})
    other = await world.call("monitoring:get_alerts", ("rack",), {"group_by": "nobody"})

    assert answer.structured is not None
    assert other.structured is not None
    assert answer.structured["groups"] == {MASK: 2}
    assert other.structured["groups"] == {"": 2}


async def test_a_change_still_tells_which_fields_it_was_about(world: World) -> None:
    answer = await world.call("cmdb:get_change_records", ("owner",), {"asset_id": "ci-4711"})

    assert answer.structured is not None
    changes = [each["change"] for each in answer.structured["changes"]]
    assert f"owner: {MASK} -> {MASK}, ip_address: 10.9.8.7 -> 10.9.8.9" in changes
    assert "status: active -> maintenance" in changes


async def test_a_topology_whose_ids_are_masked_is_drawn_without_its_relations(world: World) -> None:
    answer = await world.call("cmdb:get_service_topology", ("id",), {"service_name": "ci-4711"})

    assert f'n0["{MASK}: till server of Lyon (maintenance)"]' in answer.text
    assert f'n1[("{MASK}: ledger (inactive)")]' in answer.text
    assert "-->" not in answer.text


# What an error says of a value: the call, what is masked, and what then is not told.
ERRORS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "k8s:scale_deployment",
        {**_PLACE, "deployment": "cellar", "replicas": 1, "expected_current_replicas": 7},
        "before",
        "has 3 replicas",
    ),
    (
        "cmdb:update_asset_status",
        {"asset_id": "ci-4711", "status": "inactive", "reason": "r", "expected_version": 77},
        "status",
        "maintenance",
    ),
    (
        "cmdb:update_asset_status",
        {"asset_id": "ci-4711", "status": "inactive", "reason": "r", "expected_version": 77},
        "version",
        "at version 3",
    ),
    (
        "cmdb:update_asset_status",
        {"asset_id": "ci-4711", "status": "inactive", "reason": "r", "expected_version": 77},
        "last_updated",
        "UTC",
    ),
    # Prometheus' own words.
    (
        "monitoring:query_metrics",
        {"query": 'up{job="cashier"} + on() up{job="cashier"}'},
        "instance",
        _DOWN,
    ),
    (
        "monitoring:create_dashboard",
        {"title": "T", "panels": [{"query": "up"}], "folder": "Twins"},
        "uid",
        "team-a",
    ),
]


@pytest.mark.parametrize(("tool", "arguments", "masked", "word"), ERRORS)
async def test_an_error_tells_nothing_of_it(
    world: World, tool: str, arguments: dict[str, Any], masked: str, word: str
) -> None:
    assert word in await world.refusal(tool, (), arguments)

    text = await world.refusal(tool, (masked,), arguments)

    assert word not in text
    assert MASK in text


@pytest.mark.parametrize("masked", ["uid", "url", "version"])
async def test_an_error_about_a_dashboard_tells_nothing_of_it(world: World, masked: str) -> None:
    arguments = {**_dashboard(), "panels": [{"query": "up"}]}
    saved = (await world.call("monitoring:create_dashboard", (), arguments)).structured
    assert saved is not None
    again = {key: value for key, value in arguments.items() if key != "folder"}
    again |= {"replace_uid": saved["uid"], "expected_version": 77}

    taken = await world.refusal("monitoring:create_dashboard", (masked,), arguments)
    stale = await world.refusal("monitoring:create_dashboard", (masked,), again)

    told = {"uid": taken, "url": taken, "version": stale}[masked]
    assert MASK in told
    if masked != "version":
        assert saved["uid"] not in taken


async def test_names_of_clusters_that_are_masked_are_not_told_to_who_errs(world: World) -> None:
    world.policy.names = ("name",)
    with pytest.raises(InvalidArguments) as refused:
        await call_tool(world.gate, world.caller, "k8s_get_pods", {"cluster": "far"})

    assert f"known: {MASK}" in str(refused.value)


@pytest.mark.parametrize(("masked", "reports"), [("unheard_of", True), ("message", False)])
async def test_nothing_is_reported_on_the_way_that_is_masked_at_the_end(
    world: World, masked: str, reports: bool
) -> None:
    heard: list[str] = []

    async def progress(_done: float, _total: float | None, message: str) -> None:
        heard.append(message)

    world.policy.names = (masked,)
    arguments = {**_PLACE, "deployment": "attic", "wait_s": 1}
    await call_tool(
        world.gate, world.caller, "k8s_restart_deployment", arguments, progress=progress
    )

    assert bool(heard) is reports


DOCUMENTS = {
    "enterprise://k8s/clusters": "enterprise://k8s/clusters",
    "enterprise://k8s/{cluster}/namespaces": "enterprise://k8s/main/namespaces",
    "enterprise://monitoring/dashboards": "enterprise://monitoring/dashboards",
    "enterprise://monitoring/dashboards/{uid}": "enterprise://monitoring/dashboards/UID",
    "enterprise://cmdb/assets": "enterprise://cmdb/assets",
    "enterprise://cmdb/assets/{id}": "enterprise://cmdb/assets/ci-4711",
}


def test_every_document_is_read() -> None:
    """But what the server itself tells a caller of what it may do."""
    assert set(DOCUMENTS) == {
        document.uri for document in every_resource() if not isinstance(document, CallerResource)
    }


@pytest.mark.parametrize("template", DOCUMENTS)
async def test_a_document_tells_nothing_of_what_is_masked(world: World, template: str) -> None:
    saved = (await world.call("monitoring:create_dashboard", (), _dashboard())).structured
    assert saved is not None
    uri = DOCUMENTS[template].replace("UID", saved["uid"])
    found = world.resources.find(uri)
    assert found is not None
    raw = json.loads(await world.read(uri, ()))
    names = tuple(dict.fromkeys(_names(raw)))

    leaked = []
    hid = 0
    for masked in (*((name,) for name in names), names):
        text = await world.read(uri, masked)
        secrets = _secrets(found[0], raw, masked, {"uri": uri})
        hid += len(secrets)
        leaked += [(masked[:3], secret) for secret in secrets if secret in text]

    assert leaked == []
    assert hid > 0


@pytest.mark.parametrize(
    ("template", "parameter", "masked"),
    [
        ("enterprise://k8s/{cluster}/namespaces", "cluster", "cluster"),
        ("enterprise://k8s/{cluster}/namespaces", "cluster", "name"),
        ("enterprise://k8s/{cluster}/namespaces", "namespace", "namespace"),
        ("enterprise://k8s/{cluster}/namespaces", "namespace", "name"),
        ("enterprise://monitoring/dashboards/{uid}", "uid", "uid"),
        ("enterprise://cmdb/assets/{id}", "id", "id"),
    ],
)
async def test_a_completion_gives_no_masked_names(
    world: World, template: str, parameter: str, masked: str
) -> None:
    await world.call("monitoring:create_dashboard", (), _dashboard())

    assert await world.complete(template, parameter, ("unheard_of",), cluster="main")
    assert not await world.complete(template, parameter, (masked,), cluster="main")


@pytest.mark.parametrize(
    ("prompt", "argument", "masked"),
    [
        ("triage_alert", "alert", "name"),
        ("triage_alert", "alert", "alertname"),
        ("triage_alert", "service", "job"),
        ("triage_alert", "service", "labels"),
        ("review_rollout", "deployment", "name"),
        ("review_rollout", "namespace", "name"),
        ("review_asset", "asset_id", "id"),
    ],
)
async def test_a_prompt_is_completed_with_no_masked_names(
    world: World, prompt: str, argument: str, masked: str
) -> None:
    given = {"namespace": "hideout"} if argument == "deployment" else {}

    assert await world.complete_prompt(prompt, argument, ("unheard_of",), **given)
    assert not await world.complete_prompt(prompt, argument, (masked,), **given)


async def test_an_error_of_a_document_tells_nothing_of_it(world: World) -> None:
    (assets,) = (each for each in world.resources if each.uri == "enterprise://cmdb/assets")

    async def read(*_: object) -> str:
        raise ToolError('the CMDB says: owner="bob", owner=bob, on its own')

    broken = Resources([dataclasses.replace(assets, read=read)])
    world.policy.names = ("owner",)
    with pytest.raises(Failed) as failed:
        await broken.read(world.gate, world.caller, assets.uri)

    assert f"the CMDB says: owner={MASK}, owner={MASK}, on its own" in str(failed.value)
