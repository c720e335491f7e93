"""Calls a second and latency through Nginx, beside the bare SDK, in one run.

    python -m tests.bench.first [--seconds 8] [--workers 2]

Starts real OPA, Redis (TLS), PostgreSQL (TLS), Prometheus and Nginx (TLS, HTTP/1.1 keep-alive) on
loopback, `--workers` server processes of each kind behind the same Nginx, and one load generator on
the same machine. Prints two tables in Markdown. Rates are of the whole machine: compare the rows. The
second table, CPU time by part, depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import ssl
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from mcp_server.cli.generate.policy_catalog import catalog_of
from mcp_server.infrastructure.database.migrate import upgrade
from tests.bench.echo_node import ECHO
from tests.integration.nodes import McpNode
from tests.integration.servers import (
    Alertmanager,
    Authority,
    Opa,
    PostgresServer,
    Prometheus,
    RedisServer,
    Server,
    build_bundle,
    free_port,
    program,
)

_POLICIES = Path(__file__).resolve().parents[2] / "policies"
_VERSION = "2026-07-28"
_PLENTY = 10_000_000


class EchoNode(McpNode):
    """The product with `bench:echo` mounted."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.bench.echo_node", "governed", str(self.config)]


class BareNode(Server):
    """The SDK alone: no authentication, no policy, no limits, no audit."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.bench.echo_node", "bare", str(self.port)]

    def ready(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/mcp", timeout=2)
        except urllib.error.HTTPError:
            return True
        return True


class Nginx(Server):
    """TLS in front of two groups of servers: /mcp and /bare."""

    def __init__(
        self, directory: Path, authority: Authority, governed: list[int], bare: list[int]
    ) -> None:
        super().__init__(directory)
        self.port = free_port()
        identity = authority.identity("nginx")
        (directory / "nginx.conf").write_text(
            f"""
daemon off; worker_processes auto; pid {directory}/pid; error_log {directory}/error.log crit;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  {_upstream("governed", governed)}
  {_upstream("bare", bare)}
  server {{
    listen 127.0.0.1:{self.port} ssl;
    ssl_certificate {identity.cert}; ssl_certificate_key {identity.key};
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:1m; keepalive_requests 1000000;
    proxy_http_version 1.1;
    location = /mcp {{ {_headers("127.0.0.1")} proxy_pass http://governed; }}
    location = /bare {{ {_headers(f"127.0.0.1:{bare[0]}")} proxy_pass http://bare/mcp; }}
  }}
}}
"""
        )

    def command(self) -> list[str]:
        return [
            program("nginx", "nginx-light", Path("/usr/sbin")),
            *("-p", str(self.directory), "-c", str(self.directory / "nginx.conf")),
        ]

    def ready(self) -> bool:
        return (self.directory / "pid").exists()


def _headers(host: str) -> str:
    """Return the headers of a location, all of them: one alone would replace those of its server.

    Without `Connection ""` Nginx asks the worker to close the connection after each request.
    """
    return (
        f'proxy_set_header Host {host}; proxy_set_header Connection "";'
        " proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Request-Id $request_id;"
    )


def _upstream(name: str, ports: list[int]) -> str:
    servers = " ".join(f"server 127.0.0.1:{port};" for port in ports)
    return f"upstream {name} {{ {servers} keepalive 128; }}"


@dataclass(frozen=True)
class Row:
    """One measurement; latencies in milliseconds."""

    what: str
    connections: int
    rate: float
    p50: float
    p99: float
    errors: int
    cpu_us: dict[str, float]
    """CPU time of one call by part of the stack, in microseconds."""


@dataclass(frozen=True)
class Stack:
    """Everything that was started."""

    nginx: Nginx
    authority: Authority
    nodes: list[EchoNode]
    parts: dict[str, list[Server]]
    """The servers, by the name of their column in the table of CPU time."""


@contextmanager
def stack(workers: int) -> Iterator[Stack]:
    """Everything, started; stopped at the end."""
    directory = Path(tempfile.mkdtemp(prefix="emcp-bench-"))
    directory.chmod(0o755)
    with ExitStack() as opened:
        opened.callback(shutil.rmtree, directory)

        def started(server: Any) -> Any:
            server.start()
            opened.callback(server.stop)
            return server

        (directory / "tls").mkdir()
        authority = Authority(directory / "tls")
        postgres = PostgresServer(directory / "pg", authority)
        started(postgres)
        postgres.create_roles()
        postgres.create_database("mcp")
        database = postgres.settings("mcp")
        asyncio.run(upgrade(database, user=postgres.owner, password=postgres.owner_password))
        redis = started(RedisServer(directory / "redis", authority))
        bundle = build_bundle(_policies(directory / "policies"), directory / "bundle.tar.gz")
        prometheus = started(Prometheus(directory / "prometheus"))
        alertmanager = started(Alertmanager(directory / "alertmanager"))
        # A sidecar each, as on the hosts.
        sidecars = [started(Opa(directory / f"opa{number}", bundle)) for number in range(workers)]
        nodes = [
            started(
                EchoNode(
                    directory / f"node{number}",
                    name=f"node{number}",
                    policy=sidecar.settings(timeout_s=5),
                    counters=redis.settings(timeout_s=5),
                    database=database,
                    prometheus_url=prometheus.url,
                    alertmanager_url=alertmanager.url,
                    overrides={"public_url": "https://127.0.0.1", "log": {"level": "WARNING"}},
                )
            )
            for number, sidecar in enumerate(sidecars)
        ]
        bare = [started(BareNode(directory / f"bare{number}")) for number in range(workers)]
        nginx = started(
            Nginx(
                directory / "nginx",
                authority,
                [node.port for node in nodes],
                [server.port for server in bare],
            )
        )
        parts = {
            "workers": [*nodes, *bare],
            "OPA": sidecars,
            "PostgreSQL": [postgres],
            "Redis": [redis],
            "Nginx": [nginx],
        }
        yield Stack(nginx, authority, nodes, parts)


def _policies(directory: Path) -> Path:
    """The shipped policies with the bench's tool, and limits that nobody reaches."""
    shutil.copytree(_POLICIES, directory)

    def edit(name: str, change: dict[str, Any]) -> None:
        path = directory / "config" / name / "data.yaml"
        data = yaml.safe_load(path.read_text())
        for key, value in change.items():
            data[key] = {**data[key], **value} if key == "tools" else value
        path.write_text(yaml.safe_dump(data))

    limit = {"limit": _PLENTY, "window_s": 60}
    edit("limits", {"global": limit, "user": limit})
    edit("catalog", {"tools": catalog_of([ECHO])["tools"]})
    return directory


async def measure(
    what: str,
    url: str,
    tool: str,
    arguments: dict[str, Any],
    *,
    tls: ssl.SSLContext,
    tokens: list[str],
    connections: int,
    seconds: float,
    parts: dict[str, list[Server]],
) -> Row:
    """Send calls over `connections` connections for `seconds` and return what came back."""
    print(f"measuring {what} at {connections} …", file=sys.stderr)
    latencies: list[float] = []
    errors = 0
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": tool,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": _VERSION,
                "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }
    body = json.dumps(message).encode()
    warm_until = time.perf_counter() + 1
    end = warm_until + seconds

    def failed(status: int, answer: bytes) -> bool:
        return status != 200 or b'"error"' in answer or b'"isError":true' in answer

    async def connection(number: int, session: aiohttp.ClientSession) -> None:
        nonlocal errors
        first = True
        headers = {
            "Authorization": f"Bearer {tokens[number % len(tokens)]}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": _VERSION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        while (started := time.perf_counter()) < end:
            async with session.post(url, data=body, headers=headers, ssl=tls) as response:
                answer = await response.read()
            if first and number == 0 and failed(response.status, answer):
                raise RuntimeError(f"{what} cannot be measured: {answer[:500].decode()}")
            first = False
            if started >= warm_until:
                latencies.append(time.perf_counter() - started)
                errors += failed(response.status, answer)

    async def spent() -> dict[str, float]:
        await asyncio.sleep(warm_until - time.perf_counter())
        before = {part: cpu_s(servers) for part, servers in parts.items()}
        await asyncio.sleep(end - time.perf_counter())
        return {part: cpu_s(servers) - before[part] for part, servers in parts.items()}

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        seconds_by_part, _ = await asyncio.gather(
            spent(),
            asyncio.gather(*(connection(number, session) for number in range(connections))),
        )
    cuts = statistics.quantiles(latencies, n=100)
    return Row(
        what,
        connections,
        len(latencies) / seconds,
        cuts[49] * 1000,
        cuts[98] * 1000,
        errors,
        {part: used / len(latencies) * 1e6 for part, used in seconds_by_part.items()},
    )


async def run(started: Stack, seconds: float) -> list[Row]:
    """Measure every variant at 1 and at 100 connections."""
    tls = ssl.create_default_context(cafile=str(started.authority.ca))
    tls.check_hostname = False
    tokens = [started.nodes[0].token(f"user{number}") for number in range(20)]
    origin = f"https://127.0.0.1:{started.nginx.port}"
    variants: list[tuple[str, str, str, dict[str, Any]]] = [
        ("bare SDK, echo", f"{origin}/bare", "bench_echo", {"text": "hello"}),
        ("governed, echo", f"{origin}/mcp", "bench_echo", {"text": "hello"}),
        ("governed, cmdb_query_assets", f"{origin}/mcp", "cmdb_query_assets", {"limit": 5}),
    ]
    return [
        await measure(
            what,
            url,
            tool,
            arguments,
            tls=tls,
            tokens=tokens,
            connections=connections,
            seconds=seconds,
            parts=started.parts,
        )
        for connections in (1, 100)
        for what, url, tool, arguments in variants
    ]


def cpu_s(servers: list[Server]) -> float:
    """Return the CPU time in seconds that the servers and their living children have used."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        # proc_pid_stat(5), from the third field on: the second, a name, may hold spaces.
        fields = text.rpartition(")")[2].split()
        pid = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        ticks[pid] = int(fields[11]) + int(fields[12])
    left = [server._process.pid for server in servers if server._process is not None]
    used = 0
    while left:
        pid = left.pop()
        used += ticks.get(pid, 0)
        left += children.get(pid, [])
    return used / os.sysconf("SC_CLK_TCK")


def memory_mb(server: Server) -> float:
    """Return the resident memory of a server process in megabytes."""
    if server._process is None:
        return 0.0
    status = Path(f"/proc/{server._process.pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kilobytes) / 1024


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print("starting the servers …", file=sys.stderr)
    with stack(options.workers) as started:
        rows = asyncio.run(run(started, options.seconds))
        worker_mb = max(map(memory_mb, started.nodes))
        opa_mb = max(map(memory_mb, started.parts["OPA"]))
        columns = list(started.parts)
    print(
        f"{os.cpu_count()} CPUs, Python {platform.python_version()}, {options.workers} workers, "
        f"load average {os.getloadavg()[0]:.1f} at the end\n"
    )
    print("| variant | connections | calls/s | p50 ms | p99 ms | errors | rate / bare |")
    print("|---|---|---|---|---|---|---|")
    bare = {row.connections: row.rate for row in rows if row.what.startswith("bare")}
    for row in rows:
        print(
            f"| {row.what} | {row.connections} | {row.rate:.0f} | {row.p50:.1f} | {row.p99:.1f} "
            f"| {row.errors} | {row.rate / bare[row.connections]:.2f} |"
        )
    print("\nCPU time of one call, microseconds:\n")
    print(f"| variant | connections | {' | '.join(columns)} | together |")
    print("|---" * (len(columns) + 3) + "|")
    for row in rows:
        cells = " | ".join(f"{row.cpu_us[part]:.0f}" for part in columns)
        print(f"| {row.what} | {row.connections} | {cells} | {sum(row.cpu_us.values()):.0f} |")
    print(f"\nMemory after the run: a governed worker {worker_mb:.0f} MB, OPA {opa_mb:.0f} MB")


if __name__ == "__main__":
    main()
