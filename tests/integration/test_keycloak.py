"""A real identity provider: tokens of a Keycloak realm, from the sign-in to the governed call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
import pytest
from mcp import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client

from mcp_server.infrastructure.tls import client_context
from tests.integration.browsers import ChromeDriver
from tests.integration.conditions import eventually
from tests.integration.directories import PASSWORD, Slapd
from tests.integration.keycloak import Keycloak
from tests.integration.nodes import McpNode, modern_rpc, rpc
from tests.integration.oauth_clients import DesktopClient, TokenStore
from tests.integration.servers import Authority, Opa, opa_with

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("empty_counters")]

CHANGE = "cmdb_update_asset_status"
ARGUMENTS = {"asset_id": "absent", "status": "maintenance", "reason": "test"}
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": CHANGE, "arguments": ARGUMENTS},
}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@pytest.fixture(scope="module")
def keycloak(workspace: Path, authority: Authority, slapd: Slapd) -> Iterator[Keycloak]:
    server = Keycloak(workspace / "keycloak", authority, slapd)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def company_opa(workspace: Path) -> Iterator[Opa]:
    """The shipped policies, with an issuer, its groups, and an agent that may do less than its user."""
    data = {
        "issuers": {
            "keycloak": {
                "tenants": ["default"],
                "roles": ["mcp:viewer", "mcp:operator"],
                "scopes": "required",
            }
        },
        "groups": {
            "keycloak": {"operators": ["mcp:operator"], "mcp-leads": ["mcp:operator"]},
        },
        "agents": {"agent-eddsa": {"permissions": ["tools:read"]}},
    }
    with opa_with(workspace, "company", data) as server:
        yield server


@pytest.fixture(scope="module")
def node(
    make_node: Callable[..., McpNode], keycloak: Keycloak, company_opa: Opa, workspace: Path
) -> McpNode:
    secret = workspace / "keycloak-node-secret"
    secret.write_text("integration-tests-only-0123456789abcdef")
    return make_node(
        "node-keycloak",
        policy=company_opa.settings(),
        overrides={
            "identity": {
                "jwt": {
                    "secret": {"file": str(secret)},
                    "issuer": "https://issuer.test",
                    "audience": "https://mcp.test/mcp",
                },
                "issuers": [keycloak.issuer()],
            }
        },
    )


async def _tools(node: McpNode, token: str) -> httpx2.Response:
    async with node.http(token) as http:
        return await rpc(http, LIST)


def _names(answer: httpx2.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {tool["name"] for tool in answer.json()["result"]["tools"]}


@pytest.mark.parametrize("client", ["agent-rs256", "agent-es256"])
async def test_an_agent_with_client_credentials_makes_a_governed_call(
    node: McpNode, keycloak: Keycloak, client: str
) -> None:
    token = await keycloak.token(client, scope="mcp:read")

    names = _names(await _tools(node, token))
    async with node.http(token) as http:
        answer = await http.post("/tools/monitoring_query_metrics/execute", json={"query": "up"})

    assert "monitoring_query_metrics" in names
    assert CHANGE not in names
    assert answer.status_code == 200


async def test_an_agent_may_do_less_than_its_roles(node: McpNode, keycloak: Keycloak) -> None:
    names = _names(await _tools(node, await keycloak.token("agent-eddsa", scope="mcp:read")))

    assert "cmdb_query_assets" in names
    assert "monitoring_query_metrics" not in names


async def test_groups_of_a_user_give_roles_within_the_scopes(
    node: McpNode, keycloak: Keycloak
) -> None:
    reading = await keycloak.user_token("oscar", scope="mcp:read")
    writing = await keycloak.user_token("oscar", scope="mcp:read mcp:write")

    assert CHANGE not in _names(await _tools(node, reading))
    assert CHANGE in _names(await _tools(node, writing))


async def test_a_user_of_the_directory_has_the_roles_of_its_group(
    node: McpNode, keycloak: Keycloak
) -> None:
    """Keycloak verifies the password with the directory, and reads the groups from there."""
    token = await keycloak.token(
        "desktop",
        grant_type="password",
        username="bob",
        password=PASSWORD,
        scope="mcp:read mcp:write",
    )
    claims = jwt.decode(token, options={"verify_signature": False})
    async with node.http(token) as http:
        changed = await http.post(f"/tools/{CHANGE}/execute", json=ARGUMENTS)

    assert claims["groups"] == ["mcp-leads"]
    assert "mcp:operator" not in claims.get("realm_access", {}).get("roles", [])
    assert CHANGE in _names(await _tools(node, token))
    assert changed.status_code == 422, changed.text  # there is no such asset: the call ran


async def test_a_role_that_the_issuer_may_not_assert_grants_nothing(
    node: McpNode, keycloak: Keycloak
) -> None:
    names = _names(await _tools(node, await keycloak.user_token("root", scope="mcp:admin")))

    assert "cmdb_query_assets" in names
    assert CHANGE not in names


async def test_a_token_for_another_audience_is_refused(node: McpNode, keycloak: Keycloak) -> None:
    answer = await _tools(node, await keycloak.token("agent-elsewhere"))

    assert answer.status_code == 401
    assert "lacks the claim aud" in answer.json()["error"]["message"]


@pytest.mark.parametrize("send", [rpc, modern_rpc], ids=["2025", "2026"])
async def test_the_scope_that_is_missing_is_named_in_a_challenge(
    node: McpNode, keycloak: Keycloak, send: Any
) -> None:
    token = await keycloak.user_token("oscar", scope="mcp:read")
    async with node.http(token) as http:
        over_mcp = await send(http, CALL)
        over_rest = await http.post("/tools/cmdb_update_asset_status/execute", json=ARGUMENTS)

    for answer in (over_mcp, over_rest):
        assert answer.status_code == 403
        assert answer.headers["www-authenticate"] == (
            'Bearer error="insufficient_scope", '
            'error_description="the token lacks the scope mcp:write", scope="mcp:write", '
            f'resource_metadata="{node.url}/.well-known/oauth-protected-resource/mcp"'
        )
    assert over_mcp.json()["error"]["data"]["code"] == "insufficient_scope"
    assert over_rest.json()["error"]["code"] == "insufficient_scope"


async def test_an_issuer_that_requires_scopes_has_no_token_without(
    node: McpNode, keycloak: Keycloak
) -> None:
    answer = await _tools(node, await keycloak.token("agent-rs256"))

    assert answer.status_code == 403
    assert 'scope="mcp:read"' in answer.headers["www-authenticate"]


async def test_without_a_token_the_challenge_names_the_least_scope(node: McpNode) -> None:
    async with node.http() as http:
        answer = await rpc(http, LIST)
        metadata = await http.get("/.well-known/oauth-protected-resource/mcp")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == (
        'Bearer scope="mcp:read", '
        f'resource_metadata="{node.url}/.well-known/oauth-protected-resource/mcp"'
    )
    assert metadata.json()["scopes_supported"] == ["mcp:admin", "mcp:read", "mcp:write"]


async def test_the_client_of_the_sdk_follows_the_challenges(
    node: McpNode, keycloak: Keycloak, authority: Authority
) -> None:
    """From no token at all to the least scope, and from there to the scope that a call needs."""
    storage = TokenStore()
    provider = ClientCredentialsOAuthProvider(
        server_url=node.mcp_url,
        storage=storage,
        client_id="operator-agent",
        client_secret="operator-agent-secret",
        issuer=keycloak.url,
    )
    context = client_context(authority.ca)
    async with (
        httpx2.AsyncClient(auth=provider, verify=context, timeout=60) as http,
        Client(streamable_http_client(node.mcp_url, http_client=http)) as client,
    ):
        listed = await client.list_tools()
        first = len(storage.tokens)
        result = await client.call_tool(CHANGE, ARGUMENTS)

    assert "cmdb_query_assets" in {tool.name for tool in listed.tools}
    assert first == 1
    assert len(storage.tokens) == 2
    assert storage.registrations == []
    assert [set((each.scope or "").split()) & {"mcp:write"} for each in storage.tokens] == [
        set(),
        {"mcp:write"},
    ]
    assert result.is_error  # there is no such asset: the call was allowed and ran


@pytest.fixture(scope="module")
def chromedriver(workspace: Path) -> Iterator[ChromeDriver]:
    server = ChromeDriver(workspace / "chromedriver")
    server.start()
    yield server
    server.stop()


def _requested_scopes(url: str) -> set[str]:
    return set(parse_qs(urlsplit(url).query)["scope"][0].split())


@asynccontextmanager
async def _signed_in(
    node: McpNode, desktop: DesktopClient, authority: Authority
) -> AsyncIterator[Client]:
    context = client_context(authority.ca)
    async with (
        httpx2.AsyncClient(auth=desktop.provider, verify=context, timeout=120) as http,
        Client(streamable_http_client(node.mcp_url, http_client=http)) as client,
    ):
        yield client


async def test_a_user_signs_in_with_a_browser_and_makes_a_governed_call(
    node: McpNode, keycloak: Keycloak, chromedriver: ChromeDriver, authority: Authority
) -> None:
    """Authorization code with PKCE, then a further scope, then a refresh token."""
    async with (
        chromedriver.browser(trusted=keycloak.certificate) as browser,
        DesktopClient.running(
            browser,
            "oscar",
            server_url=node.mcp_url,
            registered_by=keycloak.url,
            client_id="browser",
        ) as desktop,
        _signed_in(node, desktop, authority) as client,
    ):
        listed = {tool.name for tool in (await client.list_tools()).tools}
        changed = await client.call_tool(CHANGE, ARGUMENTS)
        desktop.provider.context.token_expiry_time = time.time() - 1
        refreshed = await client.call_tool("cmdb_query_assets", {})

    assert "cmdb_query_assets" in listed
    assert CHANGE not in listed
    assert changed.is_error  # there is no such asset: the call was allowed and ran
    assert not refreshed.is_error
    assert [_requested_scopes(url) & {"mcp:read", "mcp:write"} for url in desktop.opened] == [
        {"mcp:read"},
        {"mcp:read", "mcp:write"},
    ]
    assert all("code_challenge_method=S256" in url for url in desktop.opened)
    access = [each.access_token for each in desktop.store.tokens]
    assert len(set(access)) == 3  # the browser was opened twice: the refresh token gave the third


async def test_a_client_registers_itself_and_its_user_signs_in(
    node: McpNode, keycloak: Keycloak, chromedriver: ChromeDriver, authority: Authority
) -> None:
    """Dynamic client registration (RFC 7591); the user consents to the unknown client."""
    async with (
        chromedriver.browser(trusted=keycloak.certificate) as browser,
        DesktopClient.running(browser, "oscar", server_url=node.mcp_url) as desktop,
        _signed_in(node, desktop, authority) as client,
    ):
        listed = {tool.name for tool in (await client.list_tools()).tools}

    (registered,) = desktop.store.registrations
    claims = jwt.decode(desktop.store.tokens[-1].access_token, options={"verify_signature": False})
    assert registered.client_secret is None
    assert claims["azp"] == registered.client_id
    assert "cmdb_query_assets" in listed


async def test_the_identity_provider_gives_no_code_without_pkce(keycloak: Keycloak) -> None:
    query = {
        "response_type": "code",
        "client_id": "browser",
        "redirect_uri": "http://127.0.0.1/callback",
        "scope": "mcp:read",
    }
    async with keycloak.http() as http:
        answer = await http.get("/realms/company/protocol/openid-connect/auth", params=query)

    assert answer.status_code == 302
    assert "error=invalid_request" in answer.headers["location"]


async def test_keys_are_rotated_under_load_without_a_wrong_answer(
    node: McpNode, keycloak: Keycloak
) -> None:
    """The old key is removed at once: what it signed ends, what the new one signs is accepted."""
    before = await keycloak.token("agent-rs256", scope="mcp:read")
    other = await keycloak.token("agent-es256", scope="mcp:read")
    statuses: list[int] = []
    ended = asyncio.Event()

    async def load() -> None:
        async with node.http(other) as http:
            while not ended.is_set():
                statuses.append((await rpc(http, LIST)).status_code)
                await asyncio.sleep(0.02)

    assert (await _tools(node, before)).status_code == 200
    loading = asyncio.create_task(load())
    await keycloak.rotate_keys()
    after = await keycloak.token("agent-rs256", scope="mcp:read")
    began = time.monotonic()
    accepted = await _tools(node, after)
    waited = time.monotonic() - began
    refused = await eventually(
        lambda: _tools(node, before), lambda answer: answer.status_code == 401
    )
    ended.set()
    await loading

    assert accepted.status_code == 200
    assert waited < 10
    assert refused.json()["error"]["data"]["code"] == "invalid_token"
    assert len(statuses) > 10
    assert set(statuses) == {200}


async def test_a_token_without_claims_is_introspected(
    make_node: Callable[..., McpNode], keycloak: Keycloak, company_opa: Opa, workspace: Path
) -> None:
    """Keycloak's lightweight access tokens say little; the issuer says the rest."""
    secret = workspace / "introspection-secret"
    secret.write_text("mcp-server-secret")
    shared = workspace / "introspection-node-secret"
    shared.write_text("integration-tests-only-0123456789abcdef")
    issuer = keycloak.issuer(
        algorithms=[],
        introspection={
            "url": f"{keycloak.url}/protocol/openid-connect/token/introspect",
            "client_id": "mcp-server",
            "client_secret": {"file": str(secret)},
        },
    )
    identity = {
        "jwt": {
            "secret": {"file": str(shared)},
            "issuer": "https://issuer.test",
            "audience": "https://mcp.test/mcp",
        },
        "issuers": [issuer],
    }
    node = make_node(
        "node-introspection", policy=company_opa.settings(), overrides={"identity": identity}
    )
    token = await keycloak.token("opaque-agent", scope="mcp:read")

    names = _names(await _tools(node, token))
    forged = await _tools(node, token[:-8] + "AAAAAAAA")

    assert "monitoring_query_metrics" in names
    assert forged.status_code == 401
    assert "not valid" in forged.json()["error"]["message"]
