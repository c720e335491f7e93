"""The Kubernetes tools in this process, over clusters that run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from mcp_server.settings import ClusterSettings, KubernetesSettings
from mcp_server.tools.catalog import ToolContext
from mcp_server.tools.kubernetes.family import Kubernetes
from tests.integration.clusters import Cluster
from tests.integration.conditions import PATIENCE_S
from tests.integration.forged import CIPHER
from tests.integration.results import hold
from tests.integration.servers import ServerFailed

__all__ = [
    "Call",
    "become_ready",
    "family",
    "family_of",
    "until",
    "with_pods_that_become_ready",
]

Call = Callable[..., Any]


@asynccontextmanager
async def family(cluster: Cluster, token: str = "server", **options: Any) -> AsyncIterator[Call]:
    """The tools over one cluster, as a function that calls one by name."""
    async with family_of({"main": cluster.settings(token)}, **options) as call:
        yield call


@asynccontextmanager
async def family_of(
    clusters: Mapping[str, ClusterSettings],
    *,
    user: str = "alice",
    groups: tuple[str, ...] = (),
    progress: Callable[[float, float | None, str], Any] | None = None,
    max_items: int | None = None,
    **options: Any,
) -> AsyncIterator[Call]:
    """The tools over clusters, as a function that calls one by name.

    Args:
        progress: gets what a long call reports.
        max_items: the most rows that the policy lets the caller have at once.
        options: further settings of the family.
    """
    context = ToolContext(user=user, tenant="default", groups=groups, max_items=max_items)
    if progress is not None:
        context = replace(context, progress=progress)
    settings = KubernetesSettings(clusters=dict(clusters), **options)
    kubernetes = Kubernetes(settings, cipher=CIPHER)
    tools = {tool.name.partition(":")[2]: tool for tool in kubernetes.tools()}
    await kubernetes.start()

    async def call(name: str, /, **arguments: Any) -> Any:
        result = await tools[name].run(tools[name].parse(arguments), context)
        document = result.model_dump(mode="json")
        hold(tools[name], document)
        return result

    try:
        yield call
    finally:
        await kubernetes.stop()


async def until(cluster: Cluster, namespace: str, name: str, ready: int) -> None:
    """Wait until a deployment has so many ready replicas, and no others."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        status = cluster.read("Deployment", namespace, name).get("status", {})
        if status.get("readyReplicas", 0) == ready == status.get("replicas", 0):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{name} did not get {ready} ready replicas: {status}")


def become_ready(cluster: Cluster, namespace: str, labels: str, *, ready: bool = True) -> None:
    """Write what a kubelet writes once the containers of those pods are ready, or no longer are."""
    answer = cluster.http.get(
        f"/api/v1/namespaces/{namespace}/pods", params={"labelSelector": labels}
    )
    for number, item in enumerate(answer.json()["items"], start=1):
        address = item["status"].get("podIP") or f"10.244.1.{number}"
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        }
        with contextlib.suppress(ServerFailed):  # it is gone meanwhile
            cluster.patch_status("Pod", namespace, item["metadata"]["name"], status)


async def with_pods_that_become_ready(
    cluster: Cluster, namespace: str, name: str, doing: Awaitable[Any]
) -> Any:
    """Return what `doing` returns; meanwhile the pods of a deployment become ready."""
    task = asyncio.ensure_future(doing)
    while not task.done():
        await asyncio.to_thread(become_ready, cluster, namespace, f"app={name}")
        await asyncio.wait([task], timeout=0.3)
    return await task
