"""Parts that stop and come back under an installation that is being used."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.deploy.installation import Host, Installation
from tests.deploy.traffic import Traffic
from tests.integration.nodes import LegacyClient

pytestmark = [pytest.mark.anyio, pytest.mark.cluster]


class TestOpaOfOneNode:
    async def test_the_node_denies_and_leaves_and_nobody_notices(self, calm: Installation) -> None:
        node = calm.members("mcp_servers")[1]
        balancer = calm.members("loadbalancers")[0]
        async with Traffic(calm, per_second=20) as traffic:
            with node.stopped("opa.service"):
                await asyncio.sleep(2)
                denied = ask_directly(balancer, node, "/mcp", calm.token(roles=["mcp:admin"]))
                ready = ask_directly(balancer, node, "/health/ready")
                await traffic.more(40)
                before = asked(balancer, node)
                await traffic.more(80)
                await asyncio.sleep(1.5)
                during = asked(balancer, node) - before
            calm.wait_until_ready()
            await asyncio.sleep(11)  # twice nginx_upstream_fail_timeout_s, and a little
            before = asked(balancer, node)
            await traffic.more(60)
            await asyncio.sleep(1.5)
            after = asked(balancer, node) - before

        assert traffic.faults == []
        assert denied == (503, "policy_unavailable")
        assert ready[0] == 503
        # Out of 80 calls a third would be 27; what is left is that nginx tries it again now and then.
        assert during <= 10
        assert after >= 10


class TestStores:
    @pytest.mark.parametrize(
        ("group", "unit", "reason"),
        [
            ("redis", "redis-server.service", "counters_unavailable"),
            ("postgres", "postgresql.service", "audit_unavailable"),
        ],
    )
    async def test_calls_are_denied_while_it_is_away_and_work_when_it_is_back(
        self, calm: Installation, group: str, unit: str, reason: str
    ) -> None:
        store = calm.members(group)[0]
        nodes = calm.members("mcp_servers")
        pids = [node.main_pid("mcp-server.service") for node in nodes]
        async with calm.http(calm.token()) as http:
            client = LegacyClient(http)
            with store.stopped(unit):
                await asyncio.sleep(2)
                denied = await client.call("cmdb_query_assets", {"limit": 1})
                rest = await http.post("/tools/cmdb_query_assets/execute", json={})
                ready = await http.get("/health/ready")
            calm.wait_until_ready()
            again = await client.call("cmdb_query_assets", {"limit": 1})

        error = denied["error"]
        assert error["data"]["reasons"][0]["code"] == reason
        assert error["data"]["reasons"][0]["solution"]
        assert error["data"]["retryable"] is True
        assert rest.status_code == 502
        assert int(rest.headers["retry-after"]) >= 1
        assert ready.status_code == 503
        assert "result" in again
        assert [node.main_pid("mcp-server.service") for node in nodes] == pids

    async def test_counts_survive_a_restart_of_redis(self, calm: Installation) -> None:
        async with calm.http(calm.token()) as http:
            for _ in range(5):
                assert (await http.post("/tools/cmdb_query_assets/execute", json={})).is_success
            await asyncio.sleep(1.5)  # what is written every second is on the disk now
            calm.members("redis")[0].systemctl("restart", "redis-server.service")
            after = await http.post("/tools/cmdb_query_assets/execute", json={})

        assert after.status_code == 200, after.text
        assert '"user";r=94;' in after.headers["ratelimit"]


def asked(balancer: Host, node: Host) -> int:
    """Return how many requests the load balancer has tried on the node."""
    pattern = rf'"path":"/(mcp|tools).*"node":"[^"]*{node.address}:8443'
    return int(balancer.run(f"grep -cE '{pattern}' /var/log/nginx/access.log || true"))


def ask_directly(balancer: Host, node: Host, path: str, token: str = "") -> tuple[int, str]:
    """Ask one node with the load balancer's certificate; return the status and the reason's code."""
    program = _ASK.format(url=f"https://{node.fqdn}:8443{path}", token=token, host=balancer.address)
    status, body = json.loads(balancer.run("python3 -", stdin=program.encode()))
    reasons = body.get("error", {}).get("data", {}).get("reasons", [{}])
    return status, reasons[0].get("code", "")


_ASK = """
import json, ssl, urllib.error, urllib.request
tls = "/etc/enterprise-mcp/tls/"
context = ssl.create_default_context(cafile=tls + "ca.pem")
context.load_cert_chain(tls + "nginx/cert.pem", tls + "nginx/key.pem")
request = urllib.request.Request("{url}", headers={{
    "Host": "{host}", "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json", "MCP-Protocol-Version": "2025-06-18"}})
if "{token}":
    request.add_header("Authorization", "Bearer {token}")
    request.data = json.dumps({{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}}).encode()
try:
    answer = urllib.request.urlopen(request, context=context, timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, json.loads(answer.read())]))
"""
