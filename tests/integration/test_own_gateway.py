"""HAProxy as docs/gateway.md configures it: clients do not notice that a node stops."""

from __future__ import annotations

import asyncio
import csv
import re
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from mcp_server.infrastructure.tls import client_context
from mcp_server.settings import TlsSettings
from tests.integration.nodes import McpNode, rpc
from tests.integration.servers import Authority, Server, free_port, program
from tests.plays import ROOT

pytestmark = pytest.mark.anyio

_DRAIN_S = 60.0
_CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "cmdb_query_assets", "arguments": {"limit": 1}},
}


class HAProxy(Server):
    """HAProxy with a configuration file in its directory."""

    stop_signal = signal.SIGUSR1  # ends when its connections do

    def __init__(self, directory: Path, configuration: str, port: int) -> None:
        super().__init__(directory)
        self._control = directory / "control"
        control = f"global\n    stats socket {self._control} level user\n"
        (directory / "haproxy.cfg").write_text(control + configuration)
        self.port = port

    def command(self) -> list[str]:
        return [program("haproxy", "haproxy"), "-db", "-f", str(self.directory / "haproxy.cfg")]

    def ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True

    def repeated(self) -> int:
        """Return how many attempts at the nodes were followed by another one."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._control))
            control.sendall(b"show stat\n")
            table = control.makefile().read().removeprefix("# ")
        rows = csv.DictReader(table.splitlines())
        return sum(int(row["wretr"] or 0) for row in rows if row["svname"] == "BACKEND")


@pytest.fixture
def tls(authority: Authority) -> TlsSettings:
    """The certificate of the nodes, with the name that all nodes of the example have."""
    shown = authority.identity("node", dns=["localhost", "mcp-server.mcp.example.com"])
    return TlsSettings(cert=shown.cert, key=shown.key, ca=authority.ca)


@pytest.fixture
def nodes(make_node: Callable[..., McpNode], tls: TlsSettings) -> Iterator[list[McpNode]]:
    made = [make_node(f"behind-haproxy-{number}", tls=tls, drain_s=_DRAIN_S) for number in (1, 2)]
    yield made
    for node in made:
        node.kill()  # stopping would drain


@pytest.fixture
def haproxy(workspace: Path, authority: Authority, nodes: list[McpNode]) -> Iterator[HAProxy]:
    """HAProxy as documented, with addresses and files of the test in place of the example's."""
    page = (ROOT / "docs" / "gateway.md").read_text()
    (documented,) = re.findall(r"```haproxy\n(.*?)```", page, re.DOTALL)
    shown = authority.identity("gateway")
    both = workspace / "gateway.pem"
    both.write_bytes(shown.cert.read_bytes() + shown.key.read_bytes())
    port = free_port()
    for example, own in {
        "bind :443": f"bind 127.0.0.1:{port}",
        "/etc/haproxy/public.pem": str(both),
        "/etc/haproxy/mcp-gateway.pem": str(both),
        "/etc/haproxy/mcp-ca.pem": str(authority.ca),
        "198.51.100.11:8443": f"127.0.0.1:{nodes[0].port}",
        "198.51.100.12:8443": f"127.0.0.1:{nodes[1].port}",
        "    server mcp3 198.51.100.13:8443\n": "",
        "hdr Host mcp.example.com": "hdr Host 127.0.0.1",
        # No check takes a node out first: that requests are repeated keeps clients from an error.
        "check inter 2s": "check inter 60s",
        "timeout connect 2s": "timeout connect 30s",
    }.items():
        assert example in documented
        documented = documented.replace(example, own)
    server = HAProxy(workspace / "haproxy", documented, port)
    server.start()
    yield server
    server.kill()


async def test_no_client_sees_that_a_node_stops(
    haproxy: HAProxy, nodes: list[McpNode], authority: Authority, tls: TlsSettings
) -> None:
    stopping, staying = nodes
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    token = staying.token(roles=["mcp:admin"])
    async with httpx2.AsyncClient(
        base_url=f"https://127.0.0.1:{haproxy.port}",
        headers={"Authorization": f"Bearer {token}"},
        verify=trusted,
        timeout=60,
        # A connection for each call, so that the nodes take turns.
        limits=httpx2.Limits(max_keepalive_connections=0),
    ) as http:

        async def called() -> list[int]:
            answers = [await rpc(http, _CALL) for _ in range(4)]
            assert all("result" in answer.json() for answer in answers), answers
            return [answer.status_code for answer in answers]

        before = await called()
        repeated_before = haproxy.repeated()
        stopping.send(signal.SIGTERM)
        await _drains(stopping, tls)
        draining = await called()
        # Its port is open: what was repeated had been answered with 503.
        repeated = haproxy.repeated()
        await _drains(stopping, tls)
        stopping.kill()
        gone = await called()

    assert before == draining == gone == [200] * 4
    assert repeated_before == 0
    assert repeated > 0


async def _drains(node: McpNode, tls: TlsSettings) -> None:
    """Wait until the node says that it is stopping."""
    context = client_context(tls.ca, tls)
    async with httpx2.AsyncClient(base_url=node.url, verify=context, timeout=30) as http:
        async with asyncio.timeout(_DRAIN_S):
            while (await http.get("/health/ready")).status_code != 503:  # noqa: ASYNC110 # no events
                await asyncio.sleep(0.1)
