"""Tokens of an issuer in calls through the whole server: identity assertions, and tenants of others."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import httpx2
import jwt
import pytest
from mcp import Client
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client

from tests.integration.fake_issuer import ASSERTION_TYPE, FakeIssuer, SigningKey
from tests.integration.nodes import AUDIENCE, McpNode, rpc
from tests.integration.oauth_clients import TokenStore
from tests.integration.servers import Opa, opa_with

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("empty_counters")]

CHANGE = "cmdb_update_asset_status"
ARGUMENTS = {"asset_id": "absent", "status": "maintenance", "reason": "test"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "cmdb_query_assets", "arguments": {}},
}


@pytest.fixture(scope="module")
def company_opa(workspace: Path) -> Iterator[Opa]:
    """The shipped policies, with an issuer that may speak for one tenant."""
    company = {"tenants": ["default"], "roles": ["mcp:operator"], "scopes": "required"}
    with opa_with(workspace, "issuer-calls", {"issuers": {"company": company}}) as server:
        yield server


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    """The authorization server whose tokens the node accepts."""
    async with FakeIssuer(SigningKey()) as running:
        yield running


@pytest.fixture
async def company_node(
    make_node: Callable[..., McpNode], company_opa: Opa, issuer: FakeIssuer
) -> McpNode:
    # In a thread, so that the issuer answers while the node starts.
    return await asyncio.to_thread(
        make_node,
        f"node-{uuid.uuid4().hex[:8]}",
        policy=company_opa.settings(),
        identity={"issuers": [issuer.settings()]},
    )


async def test_an_agent_makes_governed_calls_with_identity_assertions(
    company_node: McpNode, issuer: FakeIssuer, node_owner: asyncpg.Connection
) -> None:
    """The company's identity provider vouches for the agent; no page asks for consent (SEP-990)."""
    storage = TokenStore()
    assertions: list[str] = []
    async with FakeIssuer(SigningKey()) as provider:
        issuer.exchange_assertions(
            provider, client_secrets={"agent": "agent-secret"}, roles=["mcp:operator"]
        )

        async def assertion(audience: str, resource: str) -> str:
            assertions.append(
                provider.assertion(
                    audience,
                    sub="jagoda",
                    client_id="agent",
                    resource=resource,
                    scope="mcp:read mcp:write",
                )
            )
            return assertions[-1]

        auth = IdentityAssertionOAuthProvider(
            server_url=AUDIENCE,
            storage=storage,
            client_id="agent",
            client_secret="agent-secret",
            issuer=issuer.url,
            assertion_provider=assertion,
            scope="mcp:read",
        )
        async with (
            httpx2.AsyncClient(auth=auth, timeout=60) as http,
            Client(streamable_http_client(company_node.mcp_url, http_client=http)) as client,
        ):
            listed = {tool.name for tool in (await client.list_tools()).tools}
            queried = await client.call_tool("cmdb_query_assets", {})
            changed = await client.call_tool(CHANGE, ARGUMENTS)

    rows = await node_owner.fetch(
        "SELECT tool, effect, judged->'subject'->>'client_id' AS client FROM audit.events"
        " WHERE user_id = 'jagoda' AND method = 'tools/call' AND phase = 'outcome' ORDER BY time"
    )
    assert "cmdb_query_assets" in listed
    assert CHANGE not in listed
    assert not queried.is_error
    assert changed.is_error  # there is no such asset: the call was allowed and ran
    assert [each.scope for each in storage.tokens] == ["mcp:read", "mcp:read mcp:write"]
    assert [(row["tool"], row["effect"]) for row in rows] == [
        ("cmdb:query_assets", "allow"),
        ("cmdb:update_asset_status", "deny"),
        ("cmdb:update_asset_status", "allow"),
    ]
    assert {row["client"] for row in rows} == {"agent"}
    assert len(assertions) == 2


async def test_an_identity_assertion_is_no_access_token(
    company_node: McpNode, issuer: FakeIssuer
) -> None:
    """Also where the authorization server is the identity provider, and this server its audience."""
    claims = issuer.claims(scope="mcp:read", roles=["mcp:operator"])
    as_access_token = issuer.keys[0].sign(claims)
    as_assertion = issuer.keys[0].sign(claims, typ=ASSERTION_TYPE)

    async with company_node.http() as http:
        accepted = await rpc(http, LIST, Authorization=f"Bearer {as_access_token}")
        refused = await rpc(http, LIST, Authorization=f"Bearer {as_assertion}")

    assert jwt.get_unverified_header(as_assertion)["typ"] == "oauth-id-jag+jwt"
    assert accepted.status_code == 200
    assert refused.status_code == 401
    assert "typ must be" in refused.json()["error"]["message"]


async def test_an_issuer_does_not_speak_for_the_tenant_of_another(
    company_node: McpNode, issuer: FakeIssuer
) -> None:
    own, foreign = (
        issuer.token(tenant=tenant, scope="mcp:read", roles=["mcp:operator"])
        for tenant in ("default", "acme")
    )

    async with company_node.http() as http:
        accepted = await rpc(http, CALL, Authorization=f"Bearer {own}")
        refused = await rpc(http, CALL, Authorization=f"Bearer {foreign}")
        over_rest = await http.post(
            "/tools/cmdb_query_assets/execute",
            json={},
            headers={"Authorization": f"Bearer {foreign}"},
        )

    assert accepted.status_code == 200
    for answer in (refused, over_rest):
        assert "issuer_not_trusted" in json.dumps(answer.json())
