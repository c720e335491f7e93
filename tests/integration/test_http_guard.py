"""Requests that no route answers get an error in JSON, in the form of the client's transport."""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.integration.conditions import eventually
from tests.integration.nodes import ENVELOPE, McpNode, modern_client, modern_rpc, rpc

pytestmark = pytest.mark.anyio

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
Send = Callable[..., Awaitable[httpx2.Response]]
EXECUTE = "/tools/monitoring_query_metrics/execute"
# Headers, the status, the word for it, the code of JSON-RPC.
REJECTED = [
    pytest.param({"Authorization": ""}, 401, "unauthorized", -32013, id="no token"),
    pytest.param({"Authorization": "Bearer x"}, 401, "invalid_token", -32013, id="bad token"),
    pytest.param({"Authorization": "Basic x"}, 401, "invalid_request", -32013, id="no bearer"),
    pytest.param({"Origin": "https://evil.test"}, 403, "foreign_origin", -32600, id="origin"),
    pytest.param({"Origin": "null"}, 403, "foreign_origin", -32600, id="opaque origin"),
    pytest.param({"Host": "evil.test"}, 400, "unknown_host", -32600, id="host"),
    pytest.param({"Host": "127.0.0.1.evil.test"}, 400, "unknown_host", -32600, id="host below"),
    pytest.param({"Host": "127.0.0.1:x"}, 400, "unknown_host", -32600, id="malformed host"),
    pytest.param(
        {"Content-Type": "text/plain"}, 415, "unsupported_media_type", -32600, id="plain text"
    ),
    pytest.param(
        {"Content-Type": "application/jsonp"}, 415, "unsupported_media_type", -32600, id="jsonp"
    ),
    pytest.param({"Content-Type": ""}, 415, "unsupported_media_type", -32600, id="no type"),
    pytest.param(
        {"Content-Encoding": "gzip"}, 415, "unsupported_media_type", -32600, id="compressed"
    ),
]


async def _execute(node: McpNode, **headers: str) -> httpx2.Response:
    async with node.http(node.token()) as http:
        return await http.post(EXECUTE, json={"query": "up"}, headers=headers)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("[::1]:8443", 200),
        ("[0:0::1]", 200),
        ("[fd00::a]", 200),
        ("[FD00:0::A]:443", 200),
        ("[fd00::b]", 400),
        ("::1", 400),
    ],
)
async def test_addresses_of_ipv6_are_known_in_any_form(
    node_with_ipv6: McpNode, host: str, status: int
) -> None:
    async with node_with_ipv6.http() as http:
        answer = await http.get("/health/live", headers={"Host": host})

    assert answer.status_code == status


async def test_a_body_that_is_compressed_is_refused_by_its_coding(node: McpNode) -> None:
    """RFC 9110, section 15.5.16: the answer tells which codings are accepted."""
    refused = await _execute(node, **{"Content-Encoding": "gzip"})
    taken = await _execute(node, **{"Content-Encoding": "Identity"})

    assert "the Content-Encoding 'gzip' is not accepted" in refused.json()["error"]["message"]
    assert refused.headers["accept-encoding"] == "identity"
    assert taken.status_code == 200


async def test_the_metadata_of_the_resource_are_at_the_root_too(node: McpNode) -> None:
    """RFC 9728; clients of MCP ask at the endpoint's path, and then at the root."""
    path = "/.well-known/oauth-protected-resource"
    async with node.http() as http:
        at_the_path, at_the_root = await http.get(f"{path}/mcp"), await http.get(path)
        elsewhere = [await http.get(f"{path}/"), await http.get("/.well-known/nothing")]

    assert at_the_path.status_code == at_the_root.status_code == 200
    assert at_the_root.json() == at_the_path.json()
    assert at_the_root.json()["resource"] == node.mcp_url
    assert [answer.status_code for answer in elsewhere] == [404, 404]
    assert {answer.json()["error"]["code"] for answer in elsewhere} == {"not_found"}


@pytest.fixture(scope="module")
def node_with_ipv6(make_node: Callable[..., McpNode]) -> McpNode:
    return make_node("node-ipv6", host="::1", overrides={"public_url": "https://[fd00::a]"})


class TestOverMcp:
    @pytest.mark.parametrize(("headers", "status", "word", "number"), REJECTED)
    async def test_a_rejection_is_an_error_of_json_rpc(
        self, node: McpNode, headers: dict[str, str], status: int, word: str, number: int
    ) -> None:
        async with node.http(node.token()) as http:
            answer = await rpc(http, LIST, **{"X-Request-Id": "from-the-balancer", **headers})

        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert body.keys() == {"jsonrpc", "id", "error"}
        assert (body["jsonrpc"], body["id"]) == ("2.0", None)
        assert body["error"]["code"] == number
        assert body["error"]["data"] == {
            "code": word,
            "retryable": False,
            "request_id": "from-the-balancer",
        }
        assert ("www-authenticate" in answer.headers) == (status == 401)

    @pytest.mark.parametrize("send", [rpc, modern_rpc], ids=["2025", "2026"])
    @pytest.mark.parametrize(
        "headers",
        [
            {"Content-Type": "Application/JSON"},
            {"Content-Type": "APPLICATION/JSON; charset=utf-8"},
            {"Accept": "*/*"},
            {"Accept": "Application/*"},
            {"Accept": ""},
        ],
        ids=str,
    )
    async def test_media_types_are_read_as_http_has_them(
        self, node: McpNode, send: Send, headers: dict[str, str]
    ) -> None:
        async with node.http(node.token()) as http:
            answer = await send(http, LIST, **headers)

        assert answer.status_code == 200
        assert answer.json()["result"]["tools"]

    @pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
    async def test_without_an_accept_header_every_type_is_accepted(
        self, node: McpNode, version: str
    ) -> None:
        """RFC 9110, section 12.5.1."""
        params = {"_meta": ENVELOPE} if version == "2026-07-28" else {}
        async with node.http(node.token()) as http:
            http.headers.pop("accept")
            answer = await http.post(
                "/mcp",
                json={**LIST, "params": params},
                headers={"MCP-Protocol-Version": version, "Mcp-Method": "tools/list"},
            )

        assert "accept" not in answer.request.headers
        assert answer.status_code == 200
        assert answer.json()["result"]["tools"]

    @pytest.mark.parametrize("send", [rpc, modern_rpc], ids=["2025", "2026"])
    @pytest.mark.parametrize(
        ("method", "accept", "said"),
        [
            ("tools/list", "text/html", "must have application/json"),
            ("tools/list", "text/event-stream", "must have application/json"),
            ("subscriptions/listen", "application/json", "application/json and text/event-stream"),
        ],
    )
    async def test_what_a_client_does_not_accept_is_406_by_its_media_type(
        self, node: McpNode, send: Send, method: str, accept: str, said: str
    ) -> None:
        async with node.http(node.token()) as http:
            answer = await send(http, {**LIST, "method": method}, Accept=accept)

        assert answer.status_code == 406
        assert answer.json()["id"] == 1
        assert answer.json()["error"]["data"]["code"] == "not_acceptable"
        assert said in answer.json()["error"]["message"]

    @pytest.mark.parametrize(
        ("headers", "status", "number", "word"),
        [
            ({"Mcp-Method": "ping"}, 400, -32020, "header_mismatch"),
            ({"MCP-Protocol-Version": "1999-01-01"}, 400, -32020, "header_mismatch"),
            ({}, 404, -32601, "method_not_found"),
        ],
        ids=["another method", "another version", "no such method"],
    )
    async def test_what_the_sdk_refuses_has_the_same_data(
        self, node: McpNode, headers: dict[str, str], status: int, number: int, word: str
    ) -> None:
        message = {**LIST, "method": "made/up"}
        async with node.http(node.token()) as http:
            answer = await modern_rpc(http, message, **{"X-Request-Id": "r1", **headers})

        assert answer.status_code == status
        assert answer.json()["id"] == 1
        error = answer.json()["error"]
        assert error["code"] == number
        expected = {"code": word, "retryable": False, "request_id": "r1"}
        assert error["data"].items() >= expected.items()

    async def test_a_version_that_is_not_spoken_is_told_those_that_are(self, node: McpNode) -> None:
        envelope = {**ENVELOPE, "io.modelcontextprotocol/protocolVersion": "1999-01-01"}
        headers = {"MCP-Protocol-Version": "1999-01-01", "Mcp-Method": "tools/list"}
        async with node.http(node.token()) as http:
            answer = await rpc(http, {**LIST, "params": {"_meta": envelope}}, **headers)

        assert answer.status_code == 400
        data = answer.json()["error"]["data"]
        assert data["code"] == "unsupported_protocol_version"
        assert "2026-07-28" in data["supported"]

    async def test_the_sdk_says_why_a_token_was_refused_at_the_start(self, node: McpNode) -> None:
        expired = node.token(now=time.time() - 7200)

        with pytest.RaisesGroup(
            pytest.RaisesExc(MCPError, match="the token has expired"), flatten_subgroups=True
        ):
            async with modern_client(node, expired):
                pass

    async def test_the_sdk_says_why_a_token_was_refused_later(self, node: McpNode) -> None:
        async with (
            node.http(node.token()) as http,
            Client(streamable_http_client(node.mcp_url, http_client=http)) as client,
        ):
            http.headers["Authorization"] = f"Bearer {node.token(now=time.time() - 7200)}"
            with pytest.raises(MCPError, match="the token has expired") as refused:
                await client.list_tools()

        assert refused.value.error.code == -32013
        assert refused.value.error.data["code"] == "invalid_token"

    async def test_a_node_that_is_stopping_is_named_as_such(
        self, make_node: Callable[..., McpNode]
    ) -> None:
        node = make_node("draining")
        node.config.write_text(node.config.read_text().replace("drain_s: 0.2", "drain_s: 120"))
        node.restart()
        node.send(signal.SIGTERM)

        async with node.http(node.token()) as http:
            answer = await eventually(
                lambda: rpc(http, LIST), lambda answer: answer.status_code != 200
            )
            rest = await http.get("/tools")
        node.kill()

        assert answer.status_code == rest.status_code == 503
        assert answer.headers["retry-after"] == rest.headers["retry-after"] == "1"
        error = answer.json()["error"]
        assert error["code"] == -32012
        assert error["data"].items() >= {"code": "draining", "retryable": True}.items()
        assert error["data"]["retry_after_ms"] == 1000
        assert rest.json()["error"] == {"code": "draining", "message": error["message"]}


class TestOverRest:
    @pytest.mark.parametrize(("headers", "status", "word", "number"), REJECTED)
    async def test_a_rejection_has_the_form_of_every_error(
        self, node: McpNode, headers: dict[str, str], status: int, word: str, number: int
    ) -> None:
        answer = await _execute(node, **headers)

        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["error"].keys() == {"code", "message"}
        assert answer.json()["error"]["code"] == word
        assert ("www-authenticate" in answer.headers) == (status == 401)

    async def test_a_page_of_another_origin_reads_no_list(self, node: McpNode) -> None:
        async with node.http(node.token(), Origin="https://evil.test") as http:
            answer = await http.get("/tools")

        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "foreign_origin"

    @pytest.mark.parametrize(
        "content_type", ["application/json; charset=utf-8", "Application/JSON"]
    )
    async def test_json_of_our_own_origin_is_taken(self, node: McpNode, content_type: str) -> None:
        answer = await _execute(node, **{"Content-Type": content_type, "Origin": node.url})

        assert answer.status_code == 200

    @pytest.mark.parametrize("path", ["/tools/", f"{EXECUTE}/", "/resources/", "/mcp/"])
    @pytest.mark.parametrize("verb", ["GET", "POST"])
    async def test_a_path_with_a_slash_too_many_is_not_found(
        self, node: McpNode, verb: str, path: str
    ) -> None:
        async with node.http(node.token()) as http:
            answer = await http.request(verb, path, json={})

        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"

    @pytest.mark.parametrize("path", ["/health", "/health/live", "/nowhere"])
    async def test_another_host_is_told_in_json_on_every_path(
        self, node: McpNode, path: str
    ) -> None:
        async with node.http(Host="evil.test") as http:
            answer = await http.get(path)

        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unknown_host"
