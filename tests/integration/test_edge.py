"""What a client is told whose request comes to no door: JSON, in the form that it reads."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.integration.kubernetes_calls import eventually
from tests.integration.nodes import McpNode, modern_client, rpc

pytestmark = pytest.mark.anyio

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
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
        node.config.write_text(node.config.read_text().replace("drain_s: 0.2", "drain_s: 20"))
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
        assert rest.json() == {"error": {"code": "draining", "message": error["message"]}}


class TestOverRest:
    @pytest.mark.parametrize(("headers", "status", "word", "number"), REJECTED)
    async def test_a_rejection_has_the_form_of_every_error(
        self, node: McpNode, headers: dict[str, str], status: int, word: str, number: int
    ) -> None:
        answer = await _execute(node, **headers)

        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
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

    @pytest.mark.parametrize("path", ["/health", "/health/live", "/nowhere"])
    async def test_another_host_is_told_in_json_on_every_path(
        self, node: McpNode, path: str
    ) -> None:
        async with node.http(Host="evil.test") as http:
            answer = await http.get(path)

        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unknown_host"
