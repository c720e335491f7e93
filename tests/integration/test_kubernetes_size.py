"""Lists of 5,000 pods and of more events, on a real control plane.

These come after the other tests of the cluster, by the name of this file: the simulated kubelet is slow
to make pods ready while there are so many.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_server.settings import KubernetesSettings
from mcp_server.tools.catalog import InvalidArguments, ToolContext
from mcp_server.tools.cursor import CursorCipher
from mcp_server.tools.kubernetes.clusters import Clusters
from mcp_server.tools.kubernetes.events import events_tool
from mcp_server.tools.kubernetes.family import Kubernetes
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES, present, sent_bytes
from tests.integration.clusters import Cluster, pod
from tests.integration.kubernetes_calls import family

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def crowd(cluster: Cluster) -> Cluster:
    cluster.create_many([pod(f"p-{n:04}", "crowd") for n in range(5000)])
    return cluster


async def test_5000_pods_are_walked_without_loss_or_repetition(crowd: Cluster) -> None:
    seen: list[str] = []
    cursor = None
    async with family(crowd) as call:
        while True:
            page = await call("get_pods", namespace="crowd", limit=500, cursor=cursor)
            assert page.total == 5000
            seen += [row.name for row in page.pods]
            cursor = page.next_cursor
            if cursor is None:
                break

    assert seen == [f"p-{n:04}" for n in range(5000)]


async def test_the_first_page_is_small_and_what_it_took_is_printed(
    crowd: Cluster,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    """Issue 4 wants it in under 300 ms; `make bench-pods` alone fails when it takes longer."""
    kubernetes = Kubernetes(KubernetesSettings(clusters={"main": crowd.settings()}))
    (tool,) = (tool for tool in kubernetes.tools() if tool.name == "k8s:get_pods")
    arguments = tool.parse({"namespace": "crowd"})
    took_ms = []
    await kubernetes.start()
    try:
        for _ in range(11):
            began = time.perf_counter()
            result = await tool.run(arguments, ToolContext(user="alice", tenant="default"))
            presented = present(tool, arguments, result)
            took_ms.append((time.perf_counter() - began) * 1000)
    finally:
        await kubernetes.stop()

    size = sent_bytes(presented.structured, presented.text)
    name = "k8s_get_pods, first page of 5,000 pods"
    figure = (
        f"{statistics.median(took_ms):.0f} ms (worst {max(took_ms):.0f} ms), {size / 1024:.1f} KiB"
    )
    # The end of `make test` repeats it.
    record_property(name, figure)
    with capsys.disabled():
        print(f"\n{name}: {figure}")
    assert (len(presented.structured["pods"]), presented.structured["total"]) == (50, 5000)
    assert size < RESULT_BUDGET_BYTES


async def test_a_page_cut_to_the_budget_goes_on_at_the_next_row(crowd: Cluster) -> None:
    settings = KubernetesSettings(clusters={"main": crowd.settings()})
    kubernetes = Kubernetes(settings)
    (tool,) = (tool for tool in kubernetes.tools() if tool.name == "k8s:get_pods")
    context = ToolContext(user="alice", tenant="default")
    await kubernetes.start()
    seen: list[str] = []
    cursor = None
    try:
        for _ in range(4):
            arguments = tool.parse({"namespace": "crowd", "limit": 500, "cursor": cursor})
            answer = present(tool, arguments, await tool.run(arguments, context)).structured
            seen += [row["name"] for row in answer["pods"]]
            cursor = answer["next_cursor"]
    finally:
        await kubernetes.stop()

    assert len(seen) > 500
    assert seen == [f"p-{n:04}" for n in range(len(seen))]


async def test_a_cursor_of_another_list_is_refused(crowd: Cluster) -> None:
    async with family(crowd) as call:
        page = await call("get_pods", namespace="crowd", limit=1)
        with pytest.raises(InvalidArguments, match="other arguments"):
            await call("get_pods", namespace="staging", limit=1, cursor=page.next_cursor)
        with pytest.raises(InvalidArguments, match="not a cursor"):
            await call("get_pods", namespace="crowd", cursor="!")


def _event(number: int) -> dict[str, Any]:
    """One of many events: in the order of their names the newest are the last."""
    happened = datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=number)
    about = {"kind": "Pod", "name": f"p-{number:04}", "namespace": "storm"}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about['name']}.1", "namespace": "storm"},
        "involvedObject": about,
        "type": "Normal" if number % 10 else "Warning",
        "reason": f"Reason{number}",
        "message": "Back-off restarting failed container",
        "lastTimestamp": happened.isoformat().replace("+00:00", "Z"),
    }


@pytest.fixture(scope="module")
def storm(cluster: Cluster) -> Cluster:
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "storm"}})
    cluster.create_many([_event(n) for n in range(5200)])
    return cluster


async def test_of_more_events_than_are_read_the_newest_are_told_and_what_helps(
    storm: Cluster,
) -> None:
    async with family(storm) as call:
        first = await call("get_events", namespace="storm", limit=2)
        second = await call("get_events", namespace="storm", limit=2, cursor=first.next_cursor)
        warnings = await call("get_events", namespace="storm", type="Warning", limit=1)

    assert [each.reason for each in first.events] == ["Reason4999", "Reason4998"]
    assert [each.reason for each in second.events] == ["Reason4997", "Reason4996"]
    assert (first.total, first.truncated) == (None, True)
    assert "these are the newest of the first 5000" in first.note
    assert first.note.endswith("give a kind or name or type")
    assert [each.reason for each in warnings.events] == ["Reason5190"]
    assert (warnings.total, warnings.note) == (520, None)


async def test_the_last_page_of_what_was_read_says_that_there_is_more(storm: Cluster) -> None:
    clusters = Clusters(KubernetesSettings(clusters={"main": storm.settings()}))
    tool = events_tool(clusters, CursorCipher(), max_read=500)
    arguments = tool.parse({"all_namespaces": True, "type": "Warning", "limit": 500})
    await clusters.start()
    try:
        result = await tool.run(arguments, ToolContext(user="alice", tenant="default"))
    finally:
        await clusters.stop()
    text = present(tool, arguments, result).text

    assert (len(result.events), result.truncated, result.next_cursor) == (500, True, None)
    assert "note: not all events were read: these are the newest of the first 500" in text
    assert "give a namespace or kind or name" in text
