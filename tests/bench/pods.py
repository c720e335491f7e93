"""The first page of 5,000 pods through the tool, beside the API server's own answers, in one run.

    python -m tests.bench.pods [--pods 5000] [--runs 20]

Starts a real control plane on loopback (etcd, API server, controller manager, kwok) and creates the
pods. Calls k8s_get_pods as a governed call does after its decision: arguments are checked, the API
server is asked over TLS, the answer is cut to its budget and written as text and as JSON. Prints a
table in Markdown, and ends with exit code 1 when a first page is slower or larger than it may be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from mcp_server.settings import KubernetesSettings
from mcp_server.tools.catalog import ToolContext
from mcp_server.tools.kubernetes.family import Kubernetes
from mcp_server.tools.presentation import RESULT_BUDGET_BYTES, Presented, present, sent_bytes
from tests.integration.clusters import Cluster, client, pod
from tests.integration.servers import Authority

_NAMESPACE = "crowd"
_PATH = f"/api/v1/namespaces/{_NAMESPACE}/pods"

_FIRST_PAGE = "k8s_get_pods, first page"
FIRST_PAGE_MS = 300
"""Issue 4: the median of a first page stays below this."""


@dataclass(frozen=True)
class Row:
    """One line of the table; times in milliseconds."""

    what: str
    p50: float
    worst: float
    size: int


async def measure(what: str, runs: int, call: Callable[[], Awaitable[int]]) -> Row:
    """Time `call`, which returns the bytes of its answer, `runs` times after one that warms up."""
    size = await call()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        size = await call()
        times.append((time.perf_counter() - began) * 1000)
    return Row(what, statistics.median(times), max(times), size)


def _read(http: httpx2.Client, limit: int | None) -> Callable[[], Awaitable[int]]:
    """Return a call of the API server that takes the whole objects, as a plain client does."""
    parameters = {} if limit is None else {"limit": str(limit)}

    async def call() -> int:
        answer = await asyncio.to_thread(http.get, _PATH, params=parameters)
        answer.raise_for_status()
        answer.json()
        return len(answer.content)

    return call


async def run(cluster: Cluster, authority: Authority, pods: int, runs: int) -> list[Row]:
    """Measure everything and return the rows of the table.

    Raises:
        AssertionError: a walk did not show every pod once.
    """
    kubernetes = Kubernetes(KubernetesSettings(clusters={"main": cluster.settings()}))
    (tool,) = (tool for tool in kubernetes.tools() if tool.name == "k8s:get_pods")
    context = ToolContext(user="bench", tenant="default")

    async def page(**more: Any) -> Presented:
        arguments = tool.parse({"namespace": _NAMESPACE, **more})
        return present(tool, arguments, await tool.run(arguments, context))

    async def first(**more: Any) -> int:
        return _size(await page(**more))

    async def walk() -> int:
        names: list[str] = []
        total, cursor = 0, None
        while True:
            presented = await page(limit=500, cursor=cursor)
            total += _size(presented)
            names += [row["name"] for row in presented.structured["pods"]]
            cursor = presented.structured["next_cursor"]
            if cursor is None:
                break
        if names != [f"p-{number:04}" for number in range(pods)]:
            raise AssertionError(f"the walk showed {len(names)} rows of {pods} pods")
        return total

    await kubernetes.start()
    try:
        shown = len((await page()).structured["pods"])
        with client(cluster.api.url, authority, "server") as http:
            return [
                await measure(f"{_FIRST_PAGE} ({shown})", runs, first),
                await measure(f"{_FIRST_PAGE} (limit 500)", runs, lambda: first(limit=500)),
                await measure(f"API server, the same page ({shown})", runs, _read(http, shown)),
                await measure("API server, a page of 500", runs, _read(http, 500)),
                await measure(f"API server, all {pods}", max(3, runs // 4), _read(http, None)),
                await measure(f"k8s_get_pods, walk of all {pods}", max(3, runs // 4), walk),
            ]
    finally:
        await kubernetes.stop()


def _size(presented: Presented) -> int:
    return sent_bytes(presented.structured, presented.text)


def missed(rows: Sequence[Row]) -> list[str]:
    """Return a line for each first page that is slower or larger than it may be."""
    lines = []
    for row in rows:
        if not row.what.startswith(_FIRST_PAGE):
            continue
        if row.p50 >= FIRST_PAGE_MS:
            lines.append(f"{row.what}: median {row.p50:.1f} ms, allowed less than {FIRST_PAGE_MS}")
        if row.size > RESULT_BUDGET_BYTES:
            lines.append(f"{row.what}: {row.size} bytes, allowed {RESULT_BUDGET_BYTES}")
    return lines


def main() -> None:
    """Run everything, print the table, and fail when a first page misses its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    print("starting the control plane …", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        with Cluster(Path(folder) / "cluster", authority) as cluster:
            cluster.create_many(
                [pod(f"p-{n:04}", _NAMESPACE, node="node-1") for n in range(options.pods)]
            )
            rows = asyncio.run(run(cluster, authority, options.pods, options.runs))
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} CPUs (load {load:.1f}), Python {platform.python_version()}\n")
    print("| what | p50 ms | worst ms | KiB | p50 / whole list |")
    print("|---|---|---|---|---|")
    whole = next(row.p50 for row in rows if row.what.startswith("API server, all"))
    for row in rows:
        print(
            f"| {row.what} | {row.p50:.0f} | {row.worst:.0f} | {row.size / 1024:.1f} "
            f"| {row.p50 / whole:.2f} |"
        )
    if lines := missed(rows):
        sys.exit("\n".join(["", "the target is missed:", *lines]))


if __name__ == "__main__":
    main()
