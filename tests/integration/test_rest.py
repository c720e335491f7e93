"""The REST API: names of tools, resources, the caller's rights, problem details and its description."""

from __future__ import annotations

import json

import pytest

from tests.integration.nodes import McpNode
from tests.policies import ROOT

pytestmark = pytest.mark.anyio

URI = "enterprise://cmdb/assets"


@pytest.mark.parametrize("name", ["cmdb_query_assets", "cmdb:query_assets", "cmdb%3Aquery_assets"])
async def test_a_tool_has_its_name_for_clients_and_its_name_in_the_policy(
    node: McpNode, assets: None, name: str
) -> None:
    async with node.http(node.token()) as http:
        answer = await http.post(f"/tools/{name}/execute", json={"limit": 1})

    assert answer.status_code == 200
    assert len(answer.json()["result"]["assets"]) == 1


@pytest.mark.parametrize("name", ["k8s:get_pods", "k8s_get_pods", "k8s:", ":", "cmdb:query:assets"])
async def test_a_tool_without_a_backend_and_an_absent_one_are_refused_alike(
    node: McpNode, name: str
) -> None:
    async with node.http(node.token(roles=["mcp:admin"])) as http:
        answer = await http.post(f"/tools/{name}/execute", json={})

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert answer.json()["error"]["reasons"][0]["code"] == "not_available"


async def test_a_resource_is_read_as_over_mcp(node: McpNode, assets: None) -> None:
    async with node.http(node.token()) as http:
        answer = await http.get("/resources/read", params={"uri": URI})

    body = answer.json()
    assert answer.status_code == 200
    assert (body["uri"], body["mime_type"]) == (URI, "application/json")
    assert {"db1", "mcp1"} <= {asset["id"] for asset in json.loads(body["text"])["assets"]}
    assert "x1" not in body["text"]  # of another tenant
    assert '"user";r=' in answer.headers["ratelimit"]
    assert answer.headers["cache-control"].startswith("private")


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 400, "the query must have uri once"),
        (f"?uri={URI}&uri={URI}", 400, "the query must have uri once"),
        (f"?uri={URI}&limit=1", 400, '"limit"; this path takes uri'),
        ("?uri=", 403, "not available to you"),
        ("?uri=enterprise://cmdb/secrets", 403, "not available to you"),
        ("?uri=enterprise://cmdb/assets/{id}", 403, "not available to you"),
        ("?uri=enterprise://cmdb/assets/absent", 422, "absent"),
    ],
)
async def test_what_cannot_be_read_is_told(
    node: McpNode, query: str, status: int, says: str
) -> None:
    async with node.http(node.token()) as http:
        answer = await http.get(f"/resources/read{query}")

    assert answer.status_code == status
    assert says in answer.json()["detail"]


async def test_me_has_the_callers_rights_and_the_rest_of_the_limits(node: McpNode) -> None:
    async with node.http(node.token(user="alice")) as http:
        answer = await http.get("/me")
        uncounted = await http.post("/tools/cmdb_query_assets/execute", json={})
        after = await http.get("/me")
        resource = await http.get("/resources/read", params={"uri": "enterprise://policy/me"})

    me = answer.json()
    assert (me["user"], me["tenant"], me["roles"]) == ("alice", "default", ["mcp:viewer"])
    assert "cmdb_query_assets" in {tool["name"] for tool in me["tools"]}
    assert uncounted.status_code == 200
    used = [
        next(limit["remaining"] for limit in document["limits"] if limit["id"] == "user")
        for document in (me, after.json())
    ]
    assert used[1] < used[0]
    assert json.loads(resource.json()["text"]).keys() == me.keys()


async def test_an_error_is_problem_details_with_the_members_of_before(node: McpNode) -> None:
    async with node.http(node.token(), **{"X-Request-Id": "r-42"}) as http:
        answer = await http.post(
            "/tools/cmdb_update_asset_status/execute",
            json={"asset_id": "db1", "status": "active", "reason": "r"},
        )

    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:enterprise-mcp:problem:forbidden"
    assert problem["title"] == "the policy refuses; `reasons` say why"
    assert problem["status"] == answer.status_code == 403
    assert problem["detail"] == problem["error"]["message"]
    assert problem["instance"] == "urn:enterprise-mcp:request:r-42"
    assert problem["error"]["reasons"][0]["solution"]


async def test_the_description_has_the_tools_that_the_caller_may_see(node: McpNode) -> None:
    documents = {}
    for role in ("mcp:viewer", "mcp:admin"):
        async with node.http(node.token(roles=[role])) as http:
            documents[role] = (await http.get("/openapi.json")).json()
    async with node.http() as http:
        unsigned = await http.get("/openapi.json")
    every = json.loads((ROOT / "docs/openapi.json").read_text())["paths"]

    change = "/tools/cmdb_update_asset_status/execute"
    seen, all_seen = (documents[role]["paths"] for role in ("mcp:viewer", "mcp:admin"))
    assert change not in seen
    assert change in all_seen
    assert "/tools/cmdb_query_assets/execute" in seen
    assert seen.keys() < all_seen.keys() <= every.keys()
    assert documents["mcp:viewer"]["servers"] == [{"url": node.url}]
    assert unsigned.status_code == 401
