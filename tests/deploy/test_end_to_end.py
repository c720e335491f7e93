"""Calls of real MCP clients through Nginx, and what each kind of bad call gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.deploy.installation import Installation, eventually
from tests.integration import curl
from tests.integration.nodes import LegacyClient, modern_client, rpc

pytestmark = pytest.mark.anyio

VIEWERS_TOOLS = [
    "cmdb_get_change_records",
    "cmdb_get_service_topology",
    "cmdb_query_assets",
    "monitoring_get_alerts",
    "monitoring_health_check",
    "monitoring_list_metrics",
    "monitoring_query_metrics",
]
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@pytest.fixture
async def viewer(installation: Installation) -> AsyncIterator[LegacyClient]:
    async with installation.http(installation.token()) as http:
        yield LegacyClient(http)


def expected_instances(installation: Installation) -> set[tuple[str, str]]:
    """Return job and host of every series of `up`."""
    everyone = {
        name for group, names in installation.groups.items() if group != "all" for name in names
    }
    targets = {("node", name) for name in everyone}
    targets |= {("mcp-server", name) for name in installation.groups["mcp_servers"]}
    for name in installation.groups["monitoring"]:
        targets |= {("prometheus", name), ("alertmanager", name)}
    return targets


def instances(series: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return job and host of series that are up."""
    return {
        (one["labels"]["job"], one["labels"]["instance"].split(".")[0])
        for one in series
        if one["value"] == 1
    }


class TestBothEras:
    async def test_the_newest_era_gets_the_series_of_this_installation(
        self, installation: Installation
    ) -> None:
        until = time.monotonic() + 180  # the first scrape of a target may be 15 s away
        async with modern_client(installation, installation.token()) as client:
            tools = (await client.list_tools()).tools
            while True:
                result = await client.call_tool("monitoring_query_metrics", {"query": "up"})
                found = instances(result.structured_content["series"])
                if found == expected_instances(installation) or time.monotonic() > until:
                    break
                await asyncio.sleep(3)

        assert [tool.name for tool in tools] == VIEWERS_TOOLS
        assert not result.is_error
        assert found == expected_instances(installation)

    async def test_the_2025_era_gets_the_same(self, viewer: LegacyClient) -> None:
        hello = await viewer.initialize()
        tools = await viewer.request("tools/list")
        answer = await viewer.call("monitoring_query_metrics", {"query": "up"})

        assert hello["protocolVersion"] == "2025-06-18"
        assert [tool["name"] for tool in tools["result"]["tools"]] == VIEWERS_TOOLS
        assert answer["result"]["structuredContent"]["series"]

    async def test_a_rest_client_gets_the_same(self, installation: Installation) -> None:
        async with installation.http(installation.token()) as http:
            listed = await http.get("/tools")
            ran = await http.post("/tools/monitoring_query_metrics/execute", json={"query": "up"})

        assert [tool["name"] for tool in listed.json()["tools"]] == VIEWERS_TOOLS
        assert ran.json()["result"]["series"]
        assert '"user";q=100;w=3600' in ran.headers["ratelimit-policy"]

    async def test_the_cmdb_describes_the_hosts_of_this_installation(
        self, viewer: LegacyClient, installation: Installation
    ) -> None:
        answer = await viewer.call("cmdb_query_assets", {"limit": 500})

        assets = answer["result"]["structuredContent"]["assets"]
        described = {asset["id"]: asset["ip_address"] for asset in assets}
        for name, address in installation.address.items():
            assert described[name] == address

    async def test_the_topology_of_the_service_has_every_host_that_serves_it(
        self, viewer: LegacyClient, installation: Installation
    ) -> None:
        answer = await viewer.call("cmdb_get_service_topology", {"service_name": "mcp"})

        nodes = {node["id"] for node in answer["result"]["structuredContent"]["nodes"]}
        assert nodes == {"service:mcp", *installation.address}

    async def test_alerts_are_asked_of_the_alertmanager(self, viewer: LegacyClient) -> None:
        answer = await viewer.call("monitoring_get_alerts")

        assert isinstance(answer["result"]["structuredContent"]["alerts"], list)

    async def test_nodes_take_turns(self, installation: Installation) -> None:
        balancer = installation.members("loadbalancers")[0]
        mark = f"turns-{time.time_ns()}"
        made = 4 * len(installation.groups["mcp_servers"])
        async with installation.http(installation.token(), **{"User-Agent": mark}) as http:
            for _ in range(made):
                assert (await rpc(http, LIST)).status_code == 200

        async def logged() -> str:
            return balancer.run(f"grep -F {mark} /var/log/nginx/access.log || true")

        # Each worker of nginx writes its log once a second.
        log = await eventually(logged, lambda lines: lines.count(mark) == made)
        for name in installation.groups["mcp_servers"]:
            assert f'"node":"{installation.address[name]}:8443"' in log

    @pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
    async def test_health_needs_no_token(self, installation: Installation, path: str) -> None:
        async with installation.http() as http:
            answer = await http.get(path)

        assert answer.status_code == 200
        assert "10.91" not in answer.text


class TestRefusals:
    async def test_an_unknown_tool_and_a_hidden_one_are_refused_alike(
        self, installation: Installation
    ) -> None:
        async with installation.http(installation.token(roles=["no:such-role"])) as http:
            stranger = LegacyClient(http)
            unknown = await stranger.call("no_such_tool", {"asset_id": "db1"})
            hidden = await stranger.call("monitoring_query_metrics", {"query": "up"})
            malformed = await stranger.call("monitoring_query_metrics", {"wrong": True})

        assert refusal_of(unknown) == refusal_of(hidden) == refusal_of(malformed)
        assert unknown["error"]["data"]["reasons"][0]["code"] == "not_available"

    async def test_a_viewer_learns_nothing_of_a_tool_that_is_not_for_viewers(
        self, viewer: LegacyClient
    ) -> None:
        update = await viewer.call("cmdb_update_asset_status", {"asset_id": "db1"})
        nonsense = await viewer.call("no_such_tool")

        assert refusal_of(update) == refusal_of(nonsense)
        assert update["error"]["data"]["reasons"][0]["code"] == "not_available"

    async def test_the_101st_call_of_a_user_is_limited_with_a_time_to_retry(
        self, calm: Installation
    ) -> None:
        async with calm.http(calm.token()) as http:
            client = LegacyClient(http)
            for batch in range(10):
                answers = await asyncio.gather(
                    *(client.call("cmdb_query_assets", {"limit": 1}) for _ in range(10))
                )
                assert all("result" in answer for answer in answers), (batch, answers)
            limited = await client.call("cmdb_query_assets", {"limit": 1})
            rest = await http.post("/tools/cmdb_query_assets/execute", json={})
        calm.forget_counts()

        assert limited["error"]["code"] == -32011
        assert 3_000_000 < limited["error"]["data"]["retry_after_ms"] <= 3_600_000
        assert rest.status_code == 429
        assert 3000 < int(rest.headers["retry-after"]) <= 3600


def refusal_of(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the refusal that a client sees, without the request's id."""
    error = answer["error"]
    return {**error, "data": {**error["data"], "request_id": None}}


class TestBadInput:
    @pytest.mark.parametrize(
        ("claims", "said"),
        [
            ({"ttl_s": 60, "now": time.time() - 3600}, "has expired"),
            ({"ttl_s": 3601}, "made for 3601 seconds (from iat to exp); accepted are up to 3600"),
            # Far ahead: the tests before this one may take an hour.
            ({"now": time.time() + 86_400}, "not valid yet"),
            ({"audience": "https://elsewhere.test/mcp"}, "another audience"),
            ({"issuer": "https://elsewhere.test"}, "issuer"),
            ({"secret": "another-secret-0123456789abcdefghijk"}, "signature"),
        ],
        ids=["expired", "lifetime", "future", "audience", "issuer", "signature"],
    )
    async def test_a_token_that_is_not_for_us_is_refused(
        self, installation: Installation, claims: dict[str, Any], said: str
    ) -> None:
        async with installation.http(installation.token(**claims)) as http:
            answer = await rpc(http, LIST)

        assert answer.status_code == 401
        assert said in answer.json()["error"]["message"]
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]

    async def test_without_a_token_the_challenge_names_the_metadata(
        self, installation: Installation
    ) -> None:
        async with installation.http() as http:
            answer = await rpc(http, LIST)
            challenge = answer.headers["www-authenticate"]
            metadata = await http.get(challenge.split('resource_metadata="')[1].split('"')[0])

        assert answer.status_code == 401
        assert metadata.json()["resource"] == installation.mcp_url

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"query": 5}, "query: Input should be a valid string"),
            ({"query": "up", "qurey": "up"}, "qurey: unknown argument; known arguments: limit, "),
            ({"query": "up{"}, "parse error"),
        ],
        ids=["wrong type", "unknown argument", "PromQL"],
    )
    async def test_a_bad_argument_is_named(
        self, viewer: LegacyClient, arguments: dict[str, Any], said: str
    ) -> None:
        answer = await viewer.call("monitoring_query_metrics", arguments)

        assert answer["result"]["isError"] is True
        assert said in answer["result"]["content"][0]["text"]

    async def test_malformed_json_is_refused(self, installation: Installation) -> None:
        async with installation.http(installation.token()) as http:
            answer = await rpc(http, b'{"jsonrpc": "2.0", "id": 1,')

        assert answer.status_code == 400
        assert "malformed JSON" in answer.json()["error"]["message"]

    @pytest.mark.parametrize("version", curl.VERSIONS)
    async def test_a_body_of_10_mb_is_refused(
        self, installation: Installation, version: str
    ) -> None:
        answer = curl.post(
            installation.mcp_url,
            b'{"x": "' + b"a" * 10_000_000 + b'"}',
            ca=installation.ca_file,
            version=version,
            Authorization=f"Bearer {installation.token()}",
        )

        assert answer.status == 413
        assert "262144 bytes" in answer.json()["error"]["message"]

    async def test_a_client_that_trusts_other_authorities_refuses_us(
        self, installation: Installation
    ) -> None:
        async with httpx2.AsyncClient() as http:
            with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.get(f"{installation.url}/health")
