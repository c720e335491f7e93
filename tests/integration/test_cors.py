"""Calls by web pages, through the real nginx with the role's configuration: CORS by origin."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from mcp_server.settings import TlsSettings
from tests.integration.gateways import Nginx, write_configuration
from tests.integration.nodes import McpNode
from tests.integration.servers import Authority, free_port

ALLOWED = ["https://portal.company.com", "https://*.apps.company.com", "http://localhost:3000"]
PAGES = ["https://portal.company.com", "https://crm.apps.company.com", "http://localhost:3000"]
OTHERS = [
    "https://evilcompany.com",
    "https://portal.company.com.evil.com",
    "https://evil-portal.company.com",
    "https://portal.company.com.",  # a trailing dot
    "https://portal.company.com:8443",
    "https://portal.company.com:443",  # browsers leave the default port out
    "http://portal.company.com",
    "HTTPS://PORTAL.COMPANY.COM",
    "https://Portal.company.com",
    "https://apps.company.com",
    "https://a.b.apps.company.com",
    "https://.apps.company.com",
    "https://evil.com/.apps.company.com",
    "https://evil.com#.apps.company.com",
    "https://crm.appsxcompany.com",
    "https://crm.apps.company.com:8443",
    "http://localhost:3001",
    "null",
    "*",
    "https://portal.company.com https://evil.com",
    "https://portal.company.com, https://evil.com",
]
_PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@dataclass
class Gateway:
    """nginx before one node, and a client of it with the token of a viewer."""

    client: httpx2.Client
    own_origin: str

    def get(self, path: str, origin: str, **headers: str) -> httpx2.Response:
        return self.client.get(path, headers={"Origin": origin, **headers})

    def preflight(self, path: str, origin: str) -> httpx2.Response:
        return self.client.options(path, headers={"Origin": origin, **_PREFLIGHT})


@pytest.fixture(scope="module")
def gateway(
    make_node: Callable[..., McpNode], authority: Authority, workspace: Path
) -> Iterator[Gateway]:
    shown = authority.identity("cors", dns=["localhost", "mcp-server.lab.internal"])
    port = free_port()
    own_origin = f"https://127.0.0.1:{port}"
    node = make_node(
        "cors",
        tls=TlsSettings(cert=shown.cert, key=shown.key, ca=authority.ca),
        overrides={"public_url": own_origin, "cors": {"allowed_origins": ALLOWED}},
    )
    directory = write_configuration(
        workspace / "cors-nginx",
        authority,
        nodes=[node.port],
        port=port,
        mcp_server_cors_allowed_origins=ALLOWED,
    )
    nginx = Nginx(directory, port)
    nginx.start()
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    # One user for all: no call of these tests is counted before it is refused.
    headers = {"Authorization": f"Bearer {node.token(roles=['mcp:admin'])}"}
    with httpx2.Client(base_url=own_origin, verify=trusted, headers=headers, timeout=60) as client:
        yield Gateway(client, own_origin)
    nginx.stop()


def cors_headers(response: httpx2.Response) -> set[str]:
    return {name for name in response.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", PAGES)
@pytest.mark.parametrize("path", ["/tools", "/health", "/.well-known/oauth-protected-resource"])
def test_a_page_of_an_allowed_origin_reads_the_answer(
    gateway: Gateway, path: str, origin: str
) -> None:
    response = gateway.get(path, origin)

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["access-control-allow-credentials"] == "true"
    assert "RateLimit" in response.headers["access-control-expose-headers"]
    assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", PAGES)
@pytest.mark.parametrize("path", ["/mcp", "/tools/cmdb_query_assets/execute", "/auth/token"])
def test_a_preflight_of_an_allowed_origin_is_answered_without_a_token(
    gateway: Gateway, path: str, origin: str
) -> None:
    response = gateway.client.options(
        path, headers={"Origin": origin, "Authorization": "", **_PREFLIGHT}
    )

    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-allow-methods"] == "GET, POST, DELETE"
    allowed = response.headers["access-control-allow-headers"].lower().split(", ")
    needed = {"authorization", "content-type", "dpop", "idempotency-key", "mcp-protocol-version"}
    assert needed <= {*allowed}
    assert "*" not in allowed  # not a wildcard with credentials
    assert response.headers["vary"].startswith("Origin")
    assert response.content == b""


@pytest.mark.parametrize("origin", OTHERS)
def test_all_other_origins_get_no_header_and_no_answer(gateway: Gateway, origin: str) -> None:
    read = gateway.get("/tools", origin)
    asked = gateway.preflight("/tools/cmdb_query_assets/execute", origin)
    public = gateway.get("/health", origin)
    unserved = gateway.get("/nowhere", origin)

    assert (read.status_code, read.json()["error"]["code"]) == (403, "foreign_origin")
    assert asked.status_code in {403, 405}
    assert public.status_code == 200
    assert unserved.status_code == 404
    for response in (read, asked, public, unserved):
        assert cors_headers(response) == set()
        assert response.headers["vary"] == "Origin"


def test_a_page_reads_errors_of_the_server_and_of_nginx(gateway: Gateway) -> None:
    origin = PAGES[0]
    unsigned = gateway.get("/tools", origin, Authorization="Bearer wrong")
    unserved = gateway.get("/nowhere", origin)
    large = gateway.client.post("/mcp", headers={"Origin": origin}, content=b" " * 300_000)

    assert (unsigned.status_code, unserved.status_code, large.status_code) == (401, 404, 413)
    for response in (unsigned, unserved, large):
        assert response.headers.get_list("access-control-allow-origin") == [origin]
        assert response.headers.get_list("access-control-allow-credentials") == ["true"]
        assert response.headers.get_list("vary") == ["Origin"]


def test_the_servers_own_pages_and_programs_are_served_without_these_headers(
    gateway: Gateway,
) -> None:
    own = gateway.get("/tools", gateway.own_origin)
    program = gateway.client.get("/tools")

    assert (own.status_code, program.status_code) == (200, 200)
    assert cors_headers(own) == cors_headers(program) == set()
    # A cache must not give this answer to a page either.
    assert program.headers["vary"] == "Origin"


def test_a_call_with_credentials_by_a_page_runs(gateway: Gateway) -> None:
    response = gateway.client.post(
        "/tools/cmdb_query_assets/execute",
        headers={"Origin": PAGES[0], "Content-Type": "application/json"},
        content=json.dumps({"limit": 1}),
    )

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGES[0]


def test_two_origin_headers_are_none(gateway: Gateway) -> None:
    response = gateway.client.get(
        "/tools", headers=[("Origin", PAGES[0]), ("Origin", "https://evil.com")]
    )

    assert response.status_code in {400, 403}
    assert cors_headers(response) == set()
