"""No call holds the event loop, whatever its backends answer: other callers wait for none of it.

What is counted is the time of the processor that one step of the loop takes, so that others who use this
machine do not change it. The backends are played: what they say is as large as real ones say it.
"""

from __future__ import annotations

import asyncio
import gc
import time
from asyncio import events
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest.mock import Mock

import pytest

from mcp_server.settings import KubernetesSettings, MonitoringSettings
from mcp_server.tools.catalog import Tool, ToolContext
from mcp_server.tools.cmdb.backend import CmdbBackend
from mcp_server.tools.cmdb.family import Cmdb
from mcp_server.tools.cmdb.model import ChangePage, ChangeRecord, Edge, Node, Topology
from mcp_server.tools.cursor import CursorCipher
from mcp_server.tools.kubernetes.family import Kubernetes
from mcp_server.tools.monitoring.alertmanager import Alertmanager
from mcp_server.tools.monitoring.alerts import Alerts
from mcp_server.tools.monitoring.get_alerts import get_alerts
from mcp_server.tools.monitoring.health_check import health_check
from mcp_server.tools.monitoring.names import NearNames
from mcp_server.tools.monitoring.prometheus import Prometheus
from mcp_server.tools.monitoring.query_metrics import query_metrics
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES, presented, sent_bytes

pytestmark = pytest.mark.anyio

MOST_S = 0.05
CONTEXT = ToolContext(user="alice", tenant="default")
NOW = datetime(2026, 1, 31, tzinfo=UTC)
SETTINGS = MonitoringSettings.model_validate(
    {"prometheus_url": "http://prometheus.test", "alertmanager_url": "http://alertmanager.test"}
)
ALERTS = 10_000


class Loop:
    """Tells the longest step of the event loop, in seconds of the processor."""

    longest_s = 0.0


@pytest.fixture
def loop_held(monkeypatch: pytest.MonkeyPatch) -> Loop:
    measured = Loop()
    run = events.Handle._run

    def timed(handle: events.Handle) -> None:
        started = time.thread_time()
        run(handle)
        measured.longest_s = max(measured.longest_s, time.thread_time() - started)

    monkeypatch.setattr(events.Handle, "_run", timed)
    return measured


async def held(loop: Loop, tool: Tool[Any, Any], **arguments: Any) -> tuple[float, Any]:
    """Return how long a call holds the loop, and what it gives.

    The shortest of up to three calls: other work on the machine makes the same step take more processor
    time, because it shares the caches.
    """
    held_s, given = await _held_once(loop, tool, **arguments)
    for _ in range(2):
        if held_s < MOST_S:
            break
        held_s = min(held_s, (await _held_once(loop, tool, **arguments))[0])
    return held_s, given


async def _held_once(loop: Loop, tool: Tool[Any, Any], **arguments: Any) -> tuple[float, Any]:
    # Searching what the tests themselves made for garbage is no work of the tool.
    gc.collect()
    gc.freeze()
    try:
        await asyncio.sleep(0)
        loop.longest_s = 0.0
        parsed = tool.parse(arguments)
        result = await tool.run(parsed, CONTEXT)
        shown = await presented(tool, parsed, result, oblige=lambda document: document)
        await asyncio.sleep(0)
    finally:
        gc.unfreeze()
    assert sent_bytes(shown.structured, shown.text) <= RESULT_BUDGET_BYTES
    return loop.longest_s, shown.structured


def answering(client: Any, answers: Mapping[str, Any]) -> Any:
    """Make a client get the first answer whose key stands in what is asked."""

    async def get(path: str, params: Any = (), **_: Any) -> tuple[int, Any]:
        asked = f"{path} {params}"
        return 200, next(answer for key, answer in answers.items() if key in asked)

    client._http.get = get
    return client


def _tool(part: Any, name: str) -> Tool[Any, Any]:
    found: Tool[Any, Any] = next(tool for tool in part.tools() if tool.name.endswith(f":{name}"))
    return found


def _series(number: int, **values: Any) -> dict[str, Any]:
    metric = {
        "__name__": "container_cpu_usage_seconds_total",
        "namespace": f"team-{number % 17}",
        "pod": f"web-{number}-abcdef",
        "instance": "10.0.0.1:9100",
        "job": "kubelet",
    }
    return {"metric": metric, **values}


def _data(**data: Any) -> dict[str, Any]:
    return {"status": "success", "data": data}


@pytest.mark.parametrize(
    ("series", "points", "arguments"),
    [
        (10_000, 25, {"limit": 500}),
        (500, 500, {"limit": 500, "samples": True, "time_range": "6h"}),
    ],
    ids=["many series", "many points"],
)
async def test_of_a_query(
    loop_held: Loop, series: int, points: int, arguments: dict[str, Any]
) -> None:
    values = [[1.7e9 + 60 * place, str(place * 1.5)] for place in range(points)]
    found = _data(resultType="matrix", result=[_series(n, values=values) for n in range(series)])
    counts = _data(resultType="matrix", result=[{"metric": {}, "values": [[1.7e9, str(series)]]}])
    prometheus = answering(Prometheus(SETTINGS), {"count(": counts, "query_range": found})

    tool = query_metrics(prometheus, CursorCipher(), NearNames())

    held_s, given = await held(loop_held, tool, query="x", **arguments)

    assert held_s < MOST_S
    assert given["total"] == series
    assert given["truncated"] is True


def _labels(number: int) -> dict[str, str]:
    return {
        "alertname": "KubePodNotReady",
        "severity": "warning",
        "namespace": f"team-{number % 50}",
        "pod": f"web-{number}-abcdef",
        "job": "kube-state-metrics",
        "container": "main",
    }


def _alerts(added: Mapping[str, str], dropped: str) -> Alerts:
    """Alerts of one rule, which came to Alertmanager with other labels."""
    raised = [
        {
            "labels": _labels(number),
            "annotations": {"summary": "Pod is not ready"},
            "state": "firing",
            "activeAt": (NOW - timedelta(seconds=number)).isoformat(),
        }
        for number in range(ALERTS)
    ]
    known = [
        {
            "labels": {key: v for key, v in _labels(n).items() if key != dropped} | dict(added),
            "annotations": {"summary": "Pod is not ready"},
            "startsAt": NOW.isoformat(),
            "status": {"silencedBy": [] if n % 3 else ["s"], "inhibitedBy": []},
        }
        for n in range(ALERTS)
    ]
    series = [{"metric": {**_labels(n), "__name__": "ALERTS"}} for n in range(ALERTS)]
    found = {
        "v1/alerts": _data(alerts=raised),
        "ALERTS": _data(resultType="vector", result=series),
        "query": _data(resultType="vector", result=[]),
    }
    return Alerts(
        answering(Prometheus(SETTINGS), found),
        answering(Alertmanager(SETTINGS), {"v2/alerts": known}),
    )


@pytest.mark.parametrize(
    ("added", "dropped", "silenced"),
    [
        ({"cluster": "prod"}, "", ALERTS // 3 + 1),
        ({"cluster": "prod"}, "container", ALERTS // 3 + 1),
        # Those of a namespace are not told apart any more, and of each some are heard.
        ({}, "pod", 0),
    ],
    ids=["external labels", "a label dropped", "alike"],
)
async def test_of_alerts_of_one_rule(
    loop_held: Loop, added: dict[str, str], dropped: str, silenced: int
) -> None:
    tool = get_alerts(_alerts(added, dropped), CursorCipher())
    started = time.process_time()

    held_s, given = await held(loop_held, tool, limit=500, group_by="pod")
    quiet = await tool.run(tool.parse({"state": "silenced"}), CONTEXT)

    assert held_s < MOST_S
    assert given["total"] == ALERTS
    assert quiet.total == silenced
    # It grows with the alerts, not with their square, which took minutes.
    assert time.process_time() - started < 10


async def test_of_chosen_alerts_and_of_a_health_check(loop_held: Loop) -> None:
    alerts = _alerts({"cluster": "prod"}, "")
    health = health_check(alerts._prometheus, alerts)

    for tool, arguments in (
        (get_alerts(alerts, CursorCipher()), {"matchers": ["severity=warning"], "limit": 500}),
        (health, {"service": "web"}),
    ):
        held_s, _ = await held(loop_held, tool, **arguments)
        assert held_s < MOST_S


async def test_of_a_large_topology_and_of_large_changes(loop_held: Loop) -> None:
    nodes = [
        Node.model_validate(
            {
                "id": f"srv-{n:05}",
                "name": f"server {n}",
                "type": "server",
                "status": "active",
                "depth": 1,
            }
        )
        for n in range(500)
    ]
    edges = [
        Edge.model_validate(
            {"from": f"srv-{n:05}", "to": f"srv-{n // step:05}", "type": "depends_on"}
        )
        for n in range(500)
        for step in (2, 3, 5)
    ]
    before = {f"field_{n}": "v" * 40 for n in range(40)}
    after = {key: f"{value}w" for key, value in before.items()}
    records = [
        ChangeRecord(
            id=n, time=NOW, user="u", reason="r", request_id="q", before=before, after=after
        )
        for n in range(500, 0, -1)
    ]

    class Backend:
        async def get_topology(self, *_: Any, **__: Any) -> Topology:
            return Topology(nodes=tuple(nodes), edges=tuple(edges), total=10_000)

        async def get_changes(self, *_: Any, **__: Any) -> ChangePage:
            return ChangePage(items=tuple(records), total=10_000, more=True)

    cmdb = Cmdb(cast(CmdbBackend, Backend()))
    for name, arguments in (
        ("get_service_topology", {"service_name": "x", "max_nodes": 500}),
        ("get_change_records", {"asset_id": "x", "limit": 500}),
    ):
        held_s, given = await held(loop_held, _tool(cmdb, name), **arguments)
        assert held_s < MOST_S, name
        assert given["truncated"] is True


def _kubernetes(**answers: Any) -> Kubernetes:
    settings = KubernetesSettings.model_validate({"clusters": {"main": {"in_cluster": True}}})
    family = Kubernetes(settings)
    cluster = family._clusters.find(None, CONTEXT)
    for name, answer in answers.items():
        setattr(cluster, name, answer)
    return family


async def test_of_five_thousand_events(loop_held: Loop) -> None:
    said = 'Failed to pull image "registry.example.com/team/auth-token:1.4.2": 403 Forbidden '
    items = [
        {
            "metadata": {"namespace": "team", "uid": str(n)},
            "involvedObject": {"kind": "Pod", "name": f"web-{n}"},
            "lastTimestamp": f"2026-01-01T00:{n % 60:02}:00Z",
            "message": said * 3,
        }
        for n in range(5000)
    ]

    async def get(*_: Any, **__: Any) -> dict[str, Any]:
        return {"kind": "EventList", "metadata": {}, "items": items}

    held_s, given = await held(loop_held, _tool(_kubernetes(get=get), "get_events"), limit=500)

    assert held_s < MOST_S
    assert given["total"] == 5000


@pytest.mark.parametrize(
    "line",
    [
        'level=warn token=abcdefghijkl password: "hunter2" url=https://u:p@host/x',
        "x",
        "token " * 10_000,
        "MIIEvQ/Ab1" * 6,
    ],
    ids=["secrets", "short lines", "long lines", "keys"],
)
async def test_of_a_long_log(loop_held: Loop, line: str) -> None:
    pieces = [(f"{line}\n" * (64 * 1024 // (len(line) + 1) + 1)).encode()[: 64 * 1024]] * 4
    stream = Mock()

    async def iter_chunked(_: int) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    stream.iter_chunked = iter_chunked

    @asynccontextmanager
    async def opened(*_: Any, **__: Any) -> AsyncIterator[Mock]:
        yield stream

    family = _kubernetes(stream=opened)
    held_s, given = await held(
        loop_held, _tool(family, "get_pod_logs"), pod_name="web", tail_lines=2000
    )

    assert held_s < MOST_S
    assert given["lines"] > 0
