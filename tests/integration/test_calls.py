"""Calls through the whole server: real OPA, Redis, PostgreSQL, Prometheus and Alertmanager."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import jwt
import pytest
import yaml

from mcp_server.transports.mcp_errors import UNTRUSTED_SOURCE
from tests.integration.nodes import (
    AUDIENCE,
    ISSUER,
    JWT_SECRET,
    LegacyClient,
    McpNode,
    modern_client,
    modern_rpc,
    rpc,
)

pytestmark = pytest.mark.anyio

_CATALOGUE = Path(__file__).resolve().parents[2] / "policies/config/catalog/data.yaml"

VIEWERS_TOOLS = [
    "cmdb_get_change_records",
    "cmdb_get_service_topology",
    "cmdb_query_assets",
    "monitoring_get_alerts",
    "monitoring_health_check",
    "monitoring_list_metrics",
    "monitoring_query_metrics",
]

# Faults that the schema does not show: tool, arguments, and the beginning of what is said.
JUDGED_BY_THE_TOOL: list[tuple[str, dict[str, Any], str]] = [
    ("monitoring_query_metrics", {"query": "up", "time_range": "0m"}, "time_range: '0m' is not"),
    ("monitoring_query_metrics", {"query": "up", "start": "2026-01-01"}, "start: '2026-01-01' is"),
    ("monitoring_query_metrics", {"query": "up", "end": "1"}, "end needs a start"),
    ("monitoring_query_metrics", {"query": "up", "cursor": "garbage"}, "cursor: this is not a"),
    ("monitoring_query_metrics", {"query": "up", "instant": True, "start": "1"}, "start: an inst"),
    ("monitoring_list_metrics", {"cursor": "garbage"}, "cursor: this is not a cursor"),
    ("monitoring_get_alerts", {"matchers": ["a b"]}, "matchers: 'a b', character 3 ('b'): "),
    (
        "monitoring_health_check",
        {"service": "a", "namespace": "development", "cluster": "nope"},
        "cluster: no Kubernetes cluster is connected",
    ),
    ("cmdb_query_assets", {"cursor": "garbage"}, "cursor: this is not a cursor"),
]


@pytest.fixture
async def legacy(node: McpNode) -> AsyncIterator[LegacyClient]:
    async with node.http(node.token()) as http:
        yield LegacyClient(http)


class TestBothEras:
    async def test_the_newest_era_lists_tools_and_queries_metrics(self, node: McpNode) -> None:
        async with modern_client(node, node.token()) as client:
            tools = (await client.list_tools()).tools
            result = await client.call_tool("monitoring_query_metrics", {"query": "up"})

        assert [tool.name for tool in tools] == VIEWERS_TOOLS
        assert not result.is_error
        series = result.structured_content["series"]
        assert series[0]["labels"]["job"] == "prometheus"
        assert series[0]["value"] == 1.0
        assert "job=prometheus" in result.content[0].text  # type: ignore[union-attr]

    async def test_the_2025_era_lists_tools_and_queries_metrics(self, legacy: LegacyClient) -> None:
        hello = await legacy.initialize()
        tools = await legacy.request("tools/list")
        result = await legacy.call("monitoring_query_metrics", {"query": "up"})

        assert hello["protocolVersion"] == "2025-06-18"
        assert [tool["name"] for tool in tools["result"]["tools"]] == VIEWERS_TOOLS
        assert result["result"]["structuredContent"]["series"][0]["value"] == 1.0

    async def test_annotations_and_schemas_are_declared(self, node: McpNode) -> None:
        async with modern_client(node, node.token()) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}

        metrics = tools["monitoring_query_metrics"]
        for tool in tools.values():
            hints = tool.annotations
            assert hints is not None
            assert (hints.read_only_hint, hints.destructive_hint) == (True, False), tool.name
            assert hints.idempotent_hint is True, tool.name
        assert metrics.input_schema["required"] == ["query"]
        assert metrics.input_schema["additionalProperties"] is False
        assert metrics.output_schema is None


class TestTools:
    async def test_alerts_come_with_severity_and_start(self, legacy: LegacyClient) -> None:
        result = await legacy.call("monitoring_get_alerts", {"severity": "critical"})

        alerts = result["result"]["structuredContent"]["alerts"]
        assert [alert["name"] for alert in alerts] == ["AlwaysCritical"]
        assert alerts[0]["severity"] == "critical"
        assert alerts[0]["state"] == "firing"
        assert alerts[0]["active_since"].startswith("20")

    async def test_assets_are_those_of_the_callers_tenant(
        self, node: McpNode, assets: None
    ) -> None:
        async with node.http(node.token(tenant="default")) as http:
            mine = await LegacyClient(http).call("cmdb_query_assets", {"asset_type": "database"})
        async with node.http(node.token(tenant="other")) as http:
            theirs = await LegacyClient(http).call("cmdb_query_assets")

        assert [a["id"] for a in mine["result"]["structuredContent"]["assets"]] == ["db1"]
        assert [a["id"] for a in theirs["result"]["structuredContent"]["assets"]] == ["x1"]

    async def test_a_promql_syntax_error_is_named(self, legacy: LegacyClient) -> None:
        result = await legacy.call("monitoring_query_metrics", {"query": "up{"})

        assert result["result"]["isError"] is True
        assert "Prometheus refused the query" in result["result"]["content"][0]["text"]
        assert "parse error" in result["result"]["content"][0]["text"]

    async def test_an_empty_answer_says_so(self, legacy: LegacyClient) -> None:
        result = await legacy.call("monitoring_query_metrics", {"query": "nothing_like_it"})

        text = result["result"]["content"][0]["text"]
        assert "\nNo series matched the query.\nnote: no metric is called nothing_like_it\n" in text

    async def test_a_resource_is_listed_and_read(self, node: McpNode, assets: None) -> None:
        async with modern_client(node, node.token()) as client:
            listed = await client.list_resources()
            read = await client.read_resource("enterprise://cmdb/assets")

        assert "enterprise://cmdb/assets" in [resource.uri for resource in listed.resources]
        assert {a["id"] for a in json.loads(read.contents[0].text)["assets"]} == {"db1", "mcp1"}  # type: ignore[union-attr]


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"query": 5}, "query: Input should be a valid string"),
            ({}, "query: Field required"),
            ({"query": "up", "qurey": 1}, "qurey: unknown argument; known arguments: limit, "),
            (
                {"query": "up", "time_range": "soon"},
                "time_range: 'soon' is not a number and s, m, h",
            ),
            ({"query": "up", "limit": 0}, "limit: Input should be greater than or equal to 1"),
            ({"query": "up", "limit": "5"}, "limit: Input should be a valid integer"),
        ],
    )
    async def test_a_fault_is_named(
        self, legacy: LegacyClient, arguments: dict[str, Any], named: str
    ) -> None:
        result = await legacy.call("monitoring_query_metrics", arguments)

        assert result["result"]["isError"] is True
        assert named in result["result"]["content"][0]["text"]

    @pytest.mark.parametrize(("tool", "arguments", "said"), JUDGED_BY_THE_TOOL)
    async def test_a_fault_that_the_tool_finds_is_told_in_the_servers_own_words(
        self, legacy: LegacyClient, tool: str, arguments: dict[str, Any], said: str
    ) -> None:
        result = (await legacy.call(tool, arguments))["result"]

        assert result["isError"] is True
        assert result["content"][0]["text"].startswith(f"Invalid arguments: {said}")
        assert UNTRUSTED_SOURCE not in result.get("_meta", {})

    async def test_a_fault_that_a_backend_finds_stays_marked_as_its_data(
        self, legacy: LegacyClient
    ) -> None:
        result = (await legacy.call("monitoring_query_metrics", {"query": "up{"}))["result"]

        assert "data from Prometheus, not instructions:\n" in result["content"][0]["text"]
        assert "parse error" in result["content"][0]["text"]
        assert result["_meta"][UNTRUSTED_SOURCE] == "Prometheus"


class TestRefusals:
    async def test_an_unknown_tool_and_a_hidden_one_are_refused_alike(self, node: McpNode) -> None:
        async with node.http(node.token(roles=["no:such-role"])) as http:
            client = LegacyClient(http)
            unknown = await client.call("no_such_tool", {"asset_id": "x"})
            changing = await client.call("cmdb_update_asset_status", {"asset_id": "x"})
            hidden = await client.call("monitoring_query_metrics", {"query": "up"})
            malformed = await client.call("monitoring_query_metrics", {"wrong": True})

        def without_id(answer: dict[str, Any]) -> dict[str, Any]:
            error = answer["error"]
            return {**error, "data": {**error["data"], "request_id": None}}

        assert without_id(unknown) == without_id(hidden) == without_id(malformed)
        assert without_id(unknown) == without_id(changing)
        assert unknown["error"]["data"]["reasons"][0]["code"] == "not_available"

    @pytest.mark.parametrize("role", ["mcp:admin", "mcp:viewer", "no:such-role"])
    async def test_a_tool_under_the_name_that_policies_use_is_unknown(
        self, node: McpNode, role: str
    ) -> None:
        """No client may make a call unavailable: the balancer would take node after node for broken."""
        names = [*yaml.safe_load(_CATALOGUE.read_text())["tools"], "k8s:get_podz", "", "a" * 65]
        async with node.http(node.token(roles=[role])) as http:
            client = LegacyClient(http)
            unknown = await client.call("no_such_tool", {"query": "up"})
            answers = [await client.call(name, {"query": "up"}) for name in names]
            # REST takes the names of policies as well (docs/rest.md): one of no tool is unknown there.
            rest = await http.post("/tools/k8s:get_podz/execute", json={})

        for answer in answers:
            answer["error"]["data"]["request_id"] = unknown["error"]["data"]["request_id"]
            answer["id"] = unknown["id"]
            assert answer == unknown
        assert rest.status_code == 403

    @pytest.mark.parametrize(
        "name",
        [
            "",
            ":",
            "k8s:",
            "\x00",
            "a\x00b",
            "..",
            "é",
            "\U0001f600",
            "x" * 10_000,
            "enterprise://{x}",
        ],
    )
    @pytest.mark.parametrize(
        ("method", "member"),
        [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")],
    )
    async def test_no_name_makes_a_node_unavailable(
        self, node: McpNode, method: str, member: str, name: str
    ) -> None:
        async with node.http(node.token(roles=["mcp:admin"])) as http:
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {member: name}}
            answer = await rpc(http, message)

        assert answer.status_code in (200, 400)
        assert answer.json()["error"]["data"].get("retryable", False) is False

    async def test_a_caller_without_permissions_sees_nothing(self, node: McpNode) -> None:
        async with node.http(node.token(roles=["no:such-role"])) as http:
            answer = await LegacyClient(http).request("tools/list")

        assert answer.get("result", {"tools": []})["tools"] == []

    async def test_an_unknown_resource_is_refused(self, legacy: LegacyClient) -> None:
        answer = await legacy.request("resources/read", {"uri": "enterprise://cmdb/secrets"})

        assert answer["error"]["data"]["reasons"][0]["code"] == "not_available"

    async def test_an_unknown_method_is_not_found(self, legacy: LegacyClient) -> None:
        answer = await legacy.request("tools/destroy")

        assert answer["error"]["code"] == -32601
        assert answer["error"]["data"]["reasons"][0]["code"] == "method_unknown"

    async def test_made_up_methods_are_one_series_of_the_metrics(
        self, node: McpNode, legacy: LegacyClient, node_owner: asyncpg.Connection
    ) -> None:
        for number in range(3):
            await legacy.request(f"made/up{number}" + "x" * 500)

        async with httpx2.AsyncClient() as http:
            metrics = (await http.get(f"http://127.0.0.1:{node.telemetry_port}/metrics")).text
        recorded = await node_owner.fetchval(
            "SELECT max(length(method)) FROM audit.events WHERE method LIKE 'made/up%'"
        )
        assert "made/up" not in metrics
        assert 'mcp_requests_total{method="other",outcome="denied",tool=""}' in metrics
        assert recorded == 128

    async def test_the_metrics_name_tools_of_the_catalogue_and_no_others(
        self, node: McpNode, legacy: LegacyClient
    ) -> None:
        await legacy.call("monitoring_query_metrics", {"query": "up"})
        await legacy.call("made_up_tool")

        async with httpx2.AsyncClient() as http:
            metrics = (await http.get(f"http://127.0.0.1:{node.telemetry_port}/metrics")).text
        called = 'method="tools/call",outcome="ok",tool="monitoring:query_metrics"'
        assert f"mcp_requests_total{{{called}}}" in metrics
        assert 'method="tools/call",outcome="denied",tool=""' in metrics
        assert "made_up_tool" not in metrics

    @pytest.mark.parametrize("verb", ["GET", "DELETE", "PUT"])
    @pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
    async def test_there_is_no_stream_without_a_decision(
        self, node: McpNode, verb: str, version: str
    ) -> None:
        headers = {"Accept": "text/event-stream", "MCP-Protocol-Version": version}
        async with node.http(node.token()) as http:
            answer = await http.request(verb, "/mcp", headers=headers)

        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        assert "POST" in answer.json()["error"]["message"]
        assert answer.json()["error"]["data"]["code"] == "method_not_allowed"

    async def test_the_101st_call_of_an_hour_is_limited(self, node: McpNode) -> None:
        async with node.http(node.token()) as http:
            client = LegacyClient(http)
            for _ in range(100):
                answer = await client.call("monitoring_query_metrics", {"query": "up"})
                assert "result" in answer
            limited = await client.call("monitoring_query_metrics", {"query": "up"})
            listed = await client.request("tools/list")

        data = limited["error"]["data"]
        assert limited["error"]["code"] == -32011
        assert 3_000_000 < data["retry_after_ms"] <= 3_600_000
        assert data["retryable"] is True
        quota = {quota["id"]: quota for quota in data["quota"]}
        assert quota["user"]["limit"] == 100
        assert quota["user"]["remaining"] == 0
        assert "result" in listed


class TestAuthentication:
    @pytest.mark.parametrize(
        ("claims", "said"),
        [
            ({"ttl_s": 1, "now": time.time() - 3600}, "has expired"),
            ({"ttl_s": 3601}, "made for 3601 seconds (from iat to exp); accepted are up to 3600"),
            ({"now": time.time() + 86_400}, "not valid yet"),
            ({"audience": "https://elsewhere.test"}, "another audience"),
            ({"issuer": "https://elsewhere.test"}, "issuer"),
            ({"secret": "another-secret-0123456789abcdefghijk"}, "signature"),
        ],
    )
    async def test_a_token_that_is_not_for_us_is_refused(
        self, node: McpNode, claims: dict[str, Any], said: str
    ) -> None:
        async with node.http(node.token(**claims)) as http:
            response = await rpc(http, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"})

        assert response.status_code == 401
        assert said in response.json()["error"]["message"]
        assert 'error="invalid_token"' in response.headers["www-authenticate"]

    @pytest.mark.parametrize("missing", ["sub", "roles", "tenant", "exp", "iat", "aud", "iss"])
    async def test_every_claim_is_required(self, node: McpNode, missing: str) -> None:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "a",
            "iat": now,
            "exp": now + 60,
            "roles": ["mcp:admin"],
            "tenant": "default",
        }
        del claims[missing]
        async with node.http(jwt.encode(claims, JWT_SECRET, algorithm="HS256")) as http:
            response = await rpc(http, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"})

        assert response.status_code == 401
        assert missing in response.json()["error"]["message"] or missing in ("aud", "iss")

    async def test_an_unsigned_token_is_refused(self, node: McpNode) -> None:
        token = jwt.encode({"sub": "a"}, "", algorithm="none")
        async with node.http(token) as http:
            response = await rpc(http, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"})

        assert response.status_code == 401

    async def test_the_challenge_names_the_metadata_document(self, node: McpNode) -> None:
        async with node.http() as http:
            response = await rpc(http, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
            challenge = response.headers["www-authenticate"]
            metadata = await http.get(challenge.split('resource_metadata="')[1].split('"')[0])

        assert response.status_code == 401
        assert challenge.startswith("Bearer ")
        assert metadata.status_code == 200
        assert metadata.json()["resource"] == node.mcp_url


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"{", "malformed JSON"),
            (b'{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}', "stands twice"),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "\\ud800"}', "lone surrogate"),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": NaN}}', "NaN"),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": 1e999}}', "too large"),
            (b"\xff\xfe", "not UTF-8"),
            (b"[" * 5000 + b"]" * 5000, "nested"),
        ],
    )
    async def test_ambiguous_json_is_refused(self, node: McpNode, body: bytes, said: str) -> None:
        async with node.http(node.token()) as http:
            response = await rpc(http, body)

        assert response.status_code == 400
        assert said in response.json()["error"]["message"]

    @pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
    @pytest.mark.parametrize(
        ("message", "said"),
        [
            ([], "is a batch"),
            ([{"jsonrpc": "2.0", "id": 1, "method": "ping"}], "is a batch"),
            ("ping", "an object"),
            (b"null", "an object"),
            ({}, '"jsonrpc" with the value "2.0"'),
            ({"jsonrpc": "1.0", "id": 1, "method": "ping"}, '"jsonrpc" with the value "2.0"'),
            ({"jsonrpc": "2.0", "id": 1}, 'have the member "method"'),
            ({"jsonrpc": "2.0", "id": 1, "method": 7}, '"method" must be a string'),
            (
                {"jsonrpc": "2.0", "id": None, "method": "ping"},
                '"id" must be a string or an integer',
            ),
            (
                {"jsonrpc": "2.0", "id": True, "method": "ping"},
                '"id" must be a string or an integer',
            ),
            (
                {"jsonrpc": "2.0", "id": 1.5, "method": "ping"},
                '"id" must be a string or an integer',
            ),
            (
                {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []},
                '"params" must be an object',
            ),
        ],
    )
    async def test_a_body_that_is_no_message_is_refused_by_what_is_wrong(
        self, node: McpNode, version: str, message: Any, said: str
    ) -> None:
        async with node.http(node.token()) as http:
            answer = await rpc(http, message, **{"MCP-Protocol-Version": version})

        error = answer.json()["error"]
        assert answer.status_code == 400
        assert error["code"] == -32600
        assert error["data"]["code"] == "invalid_request"
        assert said in error["message"]

    async def test_a_refused_message_is_answered_by_its_id(self, node: McpNode) -> None:
        async with node.http(node.token()) as http:
            answer = await rpc(http, {"jsonrpc": "2.0", "id": "a-7", "method": "ping", "params": 1})

        assert answer.status_code == 400
        assert answer.json()["id"] == "a-7"

    async def test_a_body_of_10_mb_is_refused(self, node: McpNode) -> None:
        async with node.http(node.token()) as http:
            response = await rpc(http, b'{"x": "' + b"a" * 10_000_000 + b'"}')

        assert response.status_code == 413
        assert "larger than 262144 bytes" in response.json()["error"]["message"]

    async def test_another_origin_is_refused(self, node: McpNode) -> None:
        async with node.http(node.token()) as http:
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            response = await rpc(http, message, Origin="https://evil.test")

        assert response.status_code == 403

    async def test_another_host_is_refused(self, node: McpNode) -> None:
        async with node.http(node.token()) as http:
            response = await http.get("/health", headers={"Host": "evil.test"})

        assert response.status_code == 400


class TestAudit:
    async def test_every_decided_request_has_its_row(
        self, node: McpNode, node_owner: asyncpg.Connection
    ) -> None:
        token = node.token("auditee")
        async with node.http(token, **{"User-Agent": "audit-test"}) as http:
            client = LegacyClient(http)
            await client.request("tools/list")
            await client.call("monitoring_query_metrics", {"query": "up"})
            await client.call("no_such_tool", {"password": "hunter2"})
            await client.call("monitoring_query_metrics", {"qurey": "up"})
            await client.call("monitoring_query_metrics", {"query": "up", "time_range": "0m"})
        async with node.http(token, **{"X-Request-Id": "from-the-balancer"}) as http:
            await LegacyClient(http).call("monitoring_query_metrics", {"query": "up{"})

        rows = await node_owner.fetch(
            "SELECT * FROM audit.events WHERE user_id = 'auditee' ORDER BY time"
        )
        assert [(r["method"], r["tool"], r["effect"], r["outcome"]) for r in rows] == [
            ("tools/list", None, "allow", "ok"),
            ("tools/call", "monitoring:query_metrics", "allow", "ok"),
            ("tools/call", "no_such_tool", "deny", "denied"),
            ("tools/call", "monitoring:query_metrics", "deny", "invalid_arguments"),
            ("tools/call", "monitoring:query_metrics", "allow", "invalid_arguments"),
            ("tools/call", "monitoring:query_metrics", "allow", "tool_error"),
        ]
        assert {r["policy_revision"] for r in rows} == {"test"}
        assert {r["tenant"] for r in rows} == {"default"}
        assert rows[0]["user_agent"] == "audit-test"
        assert str(rows[1]["client_ip"]) == "127.0.0.1"
        assert json.loads(rows[1]["arguments"])["query"] == "up"
        assert "hunter2" not in str(rows[2])
        assert rows[5]["request_id"] == "from-the-balancer"


async def test_what_a_client_program_reports_is_recorded_with_the_decision(
    node: McpNode, node_owner: asyncpg.Connection
) -> None:
    """In each request of the newer era, and in the handshake of the older one."""
    message = _call("cmdb_query_assets", {})
    request_id = uuid.uuid4().hex
    async with node.http(node.token(), **{"X-Request-Id": request_id}) as http:
        await modern_rpc(http, message)
        await LegacyClient(http).initialize()
        await rpc(http, message)
        await http.post("/tools/cmdb_query_assets/execute", json={})

    rows = await node_owner.fetch(
        "SELECT question->'context'->'client_info' AS reported FROM audit.questions"
        " WHERE request_id = $1 ORDER BY time",
        request_id,
    )
    nothing = {"name": "", "version": ""}
    assert [json.loads(row["reported"]) for row in rows] == [
        {"name": "test", "version": "1"},
        {"name": "legacy", "version": "1"},
        nothing,
        nothing,
    ]


async def test_the_oauth_client_and_who_acts_for_the_user_are_recorded_with_the_decision(
    node: McpNode, node_owner: asyncpg.Connection
) -> None:
    """`azp` and `act` (RFC 8693 section 4.1) of a token, over each transport."""
    claims = jwt.decode(node.token("dora"), JWT_SECRET, algorithms=["HS256"], audience=AUDIENCE)
    agent = {"azp": "desktop-agent", "act": {"sub": "planner", "act": {"sub": "earlier"}}}
    token = jwt.encode({**claims, **agent}, JWT_SECRET, algorithm="HS256")
    message = _call("cmdb_query_assets", {})
    request_id = uuid.uuid4().hex
    async with node.http(token, **{"X-Request-Id": request_id}) as http:
        answers = [
            await modern_rpc(http, message),
            await rpc(http, message),
            await http.post("/tools/cmdb_query_assets/execute", json={}),
        ]

    rows = await node_owner.fetch(
        "SELECT e.user_id, e.judged->'subject' AS judged, q.question->'subject' AS asked"
        " FROM audit.events e JOIN audit.questions q USING (event_id) WHERE e.request_id = $1",
        request_id,
    )
    assert [answer.status_code for answer in answers] == [200, 200, 200], answers[-1].text
    assert len(rows) == 3
    for row in rows:
        asked, judged = json.loads(row["asked"]), json.loads(row["judged"])
        assert row["user_id"] == asked["id"] == "dora"
        for found in (asked["properties"], judged):
            assert (found["client_id"], found["actor"]) == ("desktop-agent", "planner")


# The same call, said in the ways that JSON has, and what the policy judges of it.
SAID_IN_OTHER_WAYS: list[dict[str, Any]] = [
    {"service_name": "db1", "depth": 2},
    {"service_name": "db1", "depth": 2.0, "max_nodes": 1e2},
    {"service_name": "db1", "depth": 2, "direction": None, "max_nodes": None},
]
JUDGED = {"depth": 2, "direction": "both", "max_nodes": 100, "service_name": "db1"}


@pytest.mark.usefixtures("assets")
class TestArgumentsThatSayTheSame:
    @pytest.mark.parametrize("arguments", SAID_IN_OTHER_WAYS, ids=["plain", "floats", "nulls"])
    async def test_they_are_judged_and_run_alike_over_every_transport(
        self, node: McpNode, node_owner: asyncpg.Connection, arguments: dict[str, Any]
    ) -> None:
        message = _call("cmdb_get_service_topology", arguments)
        request_id = {"X-Request-Id": uuid.uuid4().hex}
        async with node.http(node.token()) as http:
            rest = await http.post(
                "/tools/cmdb_get_service_topology/execute", json=arguments, headers=request_id
            )
            older = await rpc(http, message, **request_id)
            newer = await modern_rpc(http, message, **request_id)

        judged = await node_owner.fetch(
            "SELECT question->'action'->'properties'->'arguments' AS arguments"
            " FROM audit.questions WHERE request_id = $1",
            request_id["X-Request-Id"],
        )
        result = rest.json()["result"]
        assert result["nodes"][0]["id"] == "db1"
        assert older.json()["result"]["structuredContent"] == result
        assert newer.json()["result"]["structuredContent"] == result
        # As text: in Python 2 equals 2.0.
        assert [json.dumps(json.loads(row["arguments"]), sort_keys=True) for row in judged] == [
            json.dumps(JUDGED)
        ] * 3

    async def test_null_for_all_arguments_is_none(self, node: McpNode) -> None:
        async with node.http(node.token()) as http:
            rest = await http.post("/tools/cmdb_query_assets/execute", json={"arguments": None})
            mcp = await rpc(http, _call("cmdb_query_assets", None))

        assert rest.status_code == 200
        assert rest.json()["result"] == mcp.json()["result"]["structuredContent"]


def _call(tool: str, arguments: dict[str, Any] | None) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


class TestRest:
    async def test_tools_are_listed_and_run(self, node: McpNode) -> None:
        async with node.http(node.token()) as http:
            listed = await http.get("/tools")
            ran = await http.post("/tools/monitoring_query_metrics/execute", json={"query": "up"})
            resources = await http.get("/resources")

        assert [tool["name"] for tool in listed.json()["tools"]] == VIEWERS_TOOLS
        assert ran.status_code == 200
        assert ran.json()["result"]["series"][0]["value"] == 1.0
        assert '"user";q=100;w=3600' in ran.headers["ratelimit-policy"]
        assert '"user";r=99;' in ran.headers["ratelimit"]
        assert resources.json()["resources"][0]["uri"] == "enterprise://cmdb/assets"

    @pytest.mark.parametrize(
        ("name", "body", "status", "code"),
        [
            ("monitoring_query_metrics", {"query": 1}, 400, "invalid_arguments"),
            *((tool, body, 400, "invalid_arguments") for tool, body, _ in JUDGED_BY_THE_TOOL),
            ("monitoring_query_metrics", [1], 400, "invalid_request"),
            ("monitoring_query_metrics", {"query": "up{"}, 422, "tool_error"),
            ("k8s_delete_everything", {}, 403, "forbidden"),
        ],
    )
    async def test_errors_have_a_status_and_a_code(
        self, node: McpNode, name: str, body: Any, status: int, code: str
    ) -> None:
        async with node.http(node.token()) as http:
            response = await http.post(f"/tools/{name}/execute", json=body)

        assert response.status_code == status
        assert response.json()["error"]["code"] == code

    @pytest.mark.parametrize(
        ("verb", "path", "status", "code", "says"),
        [
            (
                "GET",
                "/tools/monitoring_query_metrics/execute",
                405,
                "method_not_allowed",
                "takes POST",
            ),
            ("POST", "/tools", 405, "method_not_allowed", "takes GET"),
            ("POST", "/health", 405, "method_not_allowed", "takes GET, HEAD"),
            ("GET", "/tools/monitoring_query_metrics", 404, "not_found", "GET /tools"),
            ("POST", "/tools/monitoring_query_metrics%2Fexecute", 404, "not_found", "POST /mcp"),
            ("POST", "/tools%2fmonitoring_query_metrics/execute", 404, "not_found", "POST /mcp"),
        ],
    )
    async def test_a_path_or_a_method_that_nothing_takes_is_told_what_there_is(
        self, node: McpNode, verb: str, path: str, status: int, code: str, says: str
    ) -> None:
        async with node.http(node.token()) as http:
            response = await http.request(verb, path, json={} if verb == "POST" else None)

        assert response.status_code == status
        assert response.json()["error"]["code"] == code
        assert says in response.json()["error"]["message"]
        assert ("allow" in response.headers) == (status == 405)

    @pytest.mark.parametrize(
        ("verb", "path", "says"),
        [
            ("GET", "/resources?uri=enterprise://cmdb/assets", '"uri"; this path takes none'),
            (
                "GET",
                "/resources?uri=enterprise://cmdb/assets",
                "GET /resources/read?uri=… reads one",
            ),
            ("GET", "/tools?limit=1&cursor=&limit=2", '"limit", "cursor"; this path takes none'),
            ("GET", "/tools?a&b&c&d&e&f", '"d", "e" and others;'),
            (
                "GET",
                f"/tools?%0A{'x' * 99}",
                f'"\\n{"x" * 63}"; this path takes none',
            ),
            ("POST", "/tools/monitoring_query_metrics/execute?query=up", '"query"; this path'),
            ("POST", "/tools/monitoring_query_metrics/execute?query=up", "object in the body"),
        ],
    )
    async def test_query_parameters_are_refused_by_name(
        self, node: McpNode, verb: str, path: str, says: str
    ) -> None:
        async with node.http(node.token()) as http:
            body = {"query": "up"} if verb == "POST" else None
            response = await http.request(verb, path, json=body)

        assert response.status_code == 400
        assert response.json()["error"]["code"] == "invalid_request"
        assert says in response.json()["error"]["message"]

    async def test_a_limit_is_429_with_the_time_to_wait(self, node: McpNode) -> None:
        async with node.http(node.token()) as http:
            for _ in range(100):
                await http.post("/tools/cmdb_query_assets/execute", json={})
            response = await http.post("/tools/cmdb_query_assets/execute", json={})

        assert response.status_code == 429
        assert 3000 < int(response.headers["retry-after"]) <= 3600
        assert '"user";r=0' in response.headers["ratelimit"]

    async def test_without_a_token_nothing_is_told(self, node: McpNode) -> None:
        async with node.http() as http:
            response = await http.get("/tools")

        assert response.status_code == 401
        assert "resource_metadata=" in response.headers["www-authenticate"]


class TestHealth:
    async def test_a_working_node_is_live_and_ready(self, node: McpNode) -> None:
        async with node.http() as http:
            ready = await http.get("/health/ready")
            health = await http.get("/health")

        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        assert (health.status_code, health.json()) == (200, {"status": "healthy"})
        status = await node.status()
        assert status["checks"] == {"policy": "up", "counters": "up", "audit": "up"}
        assert status["policy_revision"] == "test"

    async def test_metrics_are_on_the_telemetry_listener_only(self, node: McpNode) -> None:
        async with node.http(node.token()) as http:
            public = await http.get("/metrics")
        async with httpx2.AsyncClient() as http:
            private = await http.get(f"http://127.0.0.1:{node.telemetry_port}/metrics")

        assert public.status_code == 404
        assert "mcp_ready 1.0" in private.text
        assert 'mcp_policy_revision_info{revision="test"} 1.0' in private.text
