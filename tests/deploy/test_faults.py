"""Parts that stop and come back under an installation that is being used."""

from __future__ import annotations

import asyncio
import json
import time

import httpx2
import pytest
from anyio import to_thread

from tests.deploy.installation import Host, Installation, eventually
from tests.deploy.traffic import Traffic
from tests.integration.nodes import LegacyClient

pytestmark = [pytest.mark.anyio, pytest.mark.cluster]


# Values of the role nginx (roles/nginx/defaults/main.yml) that decide how soon a node is tried again.
_FAIL_TIMEOUT_S = 5


class TestOpaOfOneNode:
    async def test_the_node_denies_and_leaves_and_nobody_notices(self, calm: Installation) -> None:
        node = calm.members("mcp_servers")[1]
        balancer = calm.members("loadbalancers")[0]
        token = calm.token(roles=["mcp:admin"])

        async def ready_of_node() -> tuple[int, str]:
            return await to_thread.run_sync(ask_directly, balancer, node, "/health/ready")

        async with Traffic(calm, per_second=20) as traffic:
            with node.stopped("opa.service"):
                ready = await eventually(ready_of_node, lambda answer: answer[0] == 503)
                denied = await to_thread.run_sync(ask_directly, balancer, node, "/mcp", token)
                await traffic.more(40)
                before = await asked(balancer, node)
                started = time.monotonic()
                await traffic.more(80)
                during = await asked(balancer, node) - before
                took = time.monotonic() - started
            await to_thread.run_sync(calm.wait_until_ready)
            before = await asked(balancer, node)
            # Trying it now and then, as while it was away, would take a minute and more for so many.
            await eventually(
                lambda: asked(balancer, node), lambda now: now >= before + 15, deadline_s=40
            )
            after = await asked(balancer, node) - before

        assert traffic.faults == []
        assert denied == (503, "policy_unavailable")
        assert ready[0] == 503
        # Out of 80 calls a third would be 27; what is left is that nginx tries it again each time that
        # the fail timeout is over, so the longer the calls took, the more there are.
        assert during <= 10 + took / _FAIL_TIMEOUT_S, f"{during} tries in {took:.1f} s"
        assert after >= 15


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
                calm.wait_until_not_ready()
                denied = await client.call("cmdb_query_assets", {"limit": 1})
                rest = await http.post("/tools/cmdb_query_assets/execute", json={})
                ready = await http.get("/health/ready")
            calm.wait_until_ready()
            # A moment of load may cost one call its deadline; a node that needs a restart never answers.
            again = await eventually(
                lambda: client.call("cmdb_query_assets", {"limit": 1}),
                lambda answer: "result" in answer,
                deadline_s=180,
            )

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
        redis = calm.members("redis")[0]

        async with calm.http(calm.token()) as http:

            async def call() -> httpx2.Response:
                return await http.post("/tools/cmdb_query_assets/execute", json={})

            for _ in range(5):
                assert (await call()).is_success
            await asyncio.sleep(1.5)  # what is written every second is on the disk now
            redis.systemctl("restart", "redis-server.service")
            # Calls that meet the restart are refused, uncounted, and told to come again.
            after = await eventually(call, lambda answer: "retry-after" not in answer.headers)

        assert after.status_code == 200, after.text
        assert '"user";r=94;' in after.headers["ratelimit"]


async def asked(balancer: Host, node: Host) -> int:
    """Return how many requests the load balancer has tried on the node until now."""
    await asyncio.sleep(2)  # each worker of nginx writes its log once a second
    pattern = rf'"path":"/(mcp|tools).*"node":"[^"]*{node.address}:8443'
    command = f"grep -cE '{pattern}' /var/log/nginx/access.log || true"
    return int(await to_thread.run_sync(balancer.run, command))


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
