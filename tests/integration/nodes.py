"""Server nodes as processes, and clients of both MCP eras."""

from __future__ import annotations

import itertools
import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_server.cli.generate.policy_catalog import every_tool
from mcp_server.identity import mint_token
from mcp_server.infrastructure.tls import client_context
from mcp_server.settings import CountersSettings, DatabaseSettings, PolicySettings, TlsSettings
from tests.integration.results import hold
from tests.integration.servers import Server, free_port

__all__ = [
    "ENVELOPE",
    "JWT_SECRET",
    "LegacyClient",
    "McpNode",
    "modern_client",
    "modern_rpc",
    "rpc",
]

JWT_SECRET = "integration-tests-only-0123456789abcdef"
ISSUER = "https://issuer.test"
AUDIENCE = "https://mcp.test/mcp"
ENVELOPE: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
"""What a request of the 2026-07-28 era has as `_meta`."""
_TOOLS = every_tool()
_numbers = itertools.count(1)


class McpNode(Server):
    """`mcpctl serve` on loopback.

    Args:
        host: the address for clients.
        overrides: top-level sections of the configuration that differ.
        listen: further settings of this section.
        tools: further tool families.
        telemetry: further settings of this section.
        identity: further settings of this section.
        grafana: its section of the configuration; None: there is no Grafana.
        tls: certificate of both listeners, shown by `ready` as well, for localhost; None: no TLS.
        drain_s: seconds for which it answers 503 before it stops.
    """

    def __init__(
        self,
        directory: Path,
        *,
        policy: PolicySettings,
        counters: CountersSettings,
        database: DatabaseSettings,
        prometheus_url: str,
        alertmanager_url: str,
        grafana: dict[str, Any] | None = None,
        name: str = "node1",
        overrides: dict[str, Any] | None = None,
        listen: dict[str, Any] | None = None,
        tools: dict[str, Any] | None = None,
        telemetry: dict[str, Any] | None = None,
        identity: dict[str, Any] | None = None,
        tls: TlsSettings | None = None,
        host: str = "127.0.0.1",
        drain_s: float = 0.2,
    ) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.telemetry_port = free_port()
        self._tls = tls
        authority = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{authority}:{self.port}"
        self.mcp_url = f"{self.url}/mcp"
        self.config = directory / "config.yaml"
        secret = directory / "jwt_secret"
        secret.write_text(JWT_SECRET)
        served_with: dict[str, Any] = {}
        if tls is not None:
            served_with = {"tls": tls.model_dump(mode="json"), "allowed_peers": ["localhost"]}
        document = {
            "node": name,
            "public_url": self.url,
            "listen": {
                "host": host,
                "port": self.port,
                "drain_s": drain_s,
                "trusted_proxies": ["127.0.0.1"],
                **served_with,
                **(listen or {}),
            },
            "telemetry": {
                "host": "127.0.0.1",
                "port": self.telemetry_port,
                **served_with,
                **(telemetry or {}),
            },
            "identity": {
                "jwt": {"secret": {"file": str(secret)}, "issuer": ISSUER, "audience": AUDIENCE},
                **(identity or {}),
            },
            "policy": policy.model_dump(mode="json"),
            "counters": counters.model_dump(mode="json"),
            "database": database.model_dump(mode="json"),
            "tools": {
                "monitoring": {
                    "prometheus_url": prometheus_url,
                    "alertmanager_url": alertmanager_url,
                    "timeout_s": 20,
                    **({} if grafana is None else {"grafana": grafana}),
                },
                "cmdb": {"backend": "postgres"},
                **(tools or {}),
            },
            **(overrides or {}),
        }
        self.config.write_text(yaml.safe_dump(document))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "mcp_server", "serve", "--config", str(self.config)]

    def ready(self) -> bool:
        # Live, not ready: fault tests start nodes whose backends are down.
        context = None if self._tls is None else client_context(self._tls.ca, self._tls)
        url = f"{self.url}/health/live"
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:
            return bool(answer.status == 200)

    async def status(self) -> dict[str, Any]:
        """Return the state of the node's parts, as its telemetry listener tells operators."""
        async with httpx2.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{self.telemetry_port}/status")
        found: dict[str, Any] = answer.json()
        return found

    def token(self, user: str = "", roles: Sequence[str] = ("mcp:viewer",), **claims: Any) -> str:
        """Return a token; without a user, of one that nobody used yet (limits are per user)."""
        return mint_token(
            secret=claims.pop("secret", JWT_SECRET),
            issuer=claims.pop("issuer", ISSUER),
            audience=claims.pop("audience", AUDIENCE),
            user=user or f"user-{os.getpid()}-{next(_numbers)}",
            roles=roles,
            tenant=claims.pop("tenant", "default"),
            **claims,
        )

    def http(self, token: str | None = None, **headers: str) -> httpx2.AsyncClient:
        """Return a client of this node's origin."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=90)


@asynccontextmanager
async def modern_client(node: McpNode, token: str) -> AsyncIterator[Client]:
    """The SDK's client, which speaks the newest protocol the server offers."""
    async with (
        node.http(token) as http,
        Client(streamable_http_client(node.mcp_url, http_client=http)) as client,
    ):
        yield client


class LegacyClient:
    """A client of the 2025-06-18 era: initialize, then plain JSON-RPC over POST.

    Attributes:
        http: what it sends with.
    """

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http
        self._ids = itertools.count(1)

    async def initialize(self) -> dict[str, Any]:
        """Shake hands and return the server's result."""
        answer = await self.request(
            "initialize",
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "legacy", "version": "1"},
            },
        )
        result: dict[str, Any] = answer["result"]
        await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return result

    async def request(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send one request and return the whole JSON-RPC response."""
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": method}
        response = await self._post(message if params is None else {**message, "params": params})
        body: dict[str, Any] = response.json()
        return body

    async def call(self, name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call a tool and return the whole JSON-RPC response.

        The result must conform to the declaration of the tool.
        """
        answer = await self.request("tools/call", {"name": name, "arguments": arguments or {}})
        structured = answer.get("result", {}).get("structuredContent")
        if structured is not None and (tool := _TOOLS.find(name)) is not None:
            hold(tool, structured, fields=(arguments or {}).get("fields"))
        return answer

    async def _post(self, message: dict[str, Any]) -> httpx2.Response:
        return await rpc(self.http, message)


async def rpc(http: httpx2.AsyncClient, message: Any, **headers: str) -> httpx2.Response:
    """POST a JSON-RPC message (or raw bytes) to /mcp as a client of the 2025-06-18 era."""
    content = {"content": message} if isinstance(message, bytes) else {"json": message}
    return await http.post(
        "/mcp",
        headers={
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": "2025-06-18",
            **headers,
        },
        **content,
    )


async def modern_rpc(
    http: httpx2.AsyncClient, message: dict[str, Any], **headers: str
) -> httpx2.Response:
    """POST a JSON-RPC request to /mcp as a client of the 2026-07-28 era, with its envelope."""
    params = message.get("params") or {}
    routing = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": message["method"]}
    if "name" in params:
        routing["Mcp-Name"] = params["name"]
    enveloped = {**message, "params": {**params, "_meta": ENVELOPE}}
    return await rpc(http, enveloped, **{**routing, **headers})
