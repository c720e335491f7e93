"""Client certificates and DPoP: the real Nginx before a real node, and tokens that are bound to keys."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import yaml
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mcp_server.cli import main
from mcp_server.identity.client_certificates import read_certificate
from mcp_server.infrastructure.tls import client_context
from mcp_server.settings import TlsSettings
from tests.integration.conditions import eventually
from tests.integration.fake_issuer import FakeIssuer, SigningKey
from tests.integration.gateways import Nginx, write_configuration
from tests.integration.nodes import McpNode, rpc
from tests.integration.servers import (
    Authority,
    Identity,
    Opa,
    PostgresServer,
    RedisServer,
    free_port,
    opa_with,
)
from tests.proofs import dpop_proof, thumbprint

pytestmark = pytest.mark.anyio

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
HEADER = "X-Client-Certificate"


def _certificate(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.cert.read_bytes())


def _x5t(identity: Identity) -> str:
    pem = _certificate(identity).public_bytes(Encoding.PEM).decode()
    return read_certificate(pem).thumbprint


@dataclass(frozen=True)
class Installation:
    """Nginx, which asks clients for certificates, before a node with an issuer."""

    url: str
    node: McpNode
    issuer: FakeIssuer
    ca: Path
    agent: Identity
    other: Identity
    stranger: Identity
    crl: Path
    nginx: Nginx

    def client(self, identity: Identity | None = None, **headers: str) -> httpx2.AsyncClient:
        """Return a client of Nginx that shows a certificate."""
        context = client_context(self.ca)
        if identity is not None:
            context.load_cert_chain(identity.cert, identity.key)
        return httpx2.AsyncClient(base_url=self.url, headers=headers, verify=context, timeout=60)

    async def list_tools(
        self, token: str = "", *, shows: Identity | None = None, **headers: str
    ) -> httpx2.Response:
        """Ask for the tools with a token (scheme Bearer) and a certificate."""
        if token:
            headers = {"Authorization": f"Bearer {token}", **headers}
        async with self.client(shows, **headers) as http:
            return await rpc(http, LIST)

    async def list_tools_with_proof(self, token: str, proof: str) -> httpx2.Response:
        """Ask for the tools with a token (scheme DPoP) and a proof; "" for none."""
        headers = {"Authorization": f"DPoP {token}", **({"DPoP": proof} if proof else {})}
        return await self.list_tools(shows=None, **headers)


@pytest.fixture(scope="module")
def opa_with_certificates(workspace: Path) -> Iterator[Opa]:
    asserts = {"tenants": ["default"], "roles": ["mcp:viewer"], "scopes": "optional"}
    roles = {"dns:agent.example.com": ["mcp:viewer", "mcp:admin"]}
    data = {
        "issuers": {"company": asserts, "client-certificates": asserts},
        "groups": {"client-certificates": roles},
    }
    with opa_with(workspace, "certificates", data) as server:
        yield server


@pytest.fixture(scope="module")
def clients_authority(workspace: Path) -> Authority:
    directory = workspace / "clients-tls"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture(scope="module")
async def installation(
    workspace: Path,
    authority: Authority,
    clients_authority: Authority,
    make_node: Callable[..., McpNode],
    opa_with_certificates: Opa,
) -> AsyncIterator[Installation]:
    async with FakeIssuer(SigningKey()) as issuer:
        port = free_port()
        crl = workspace / "clients.crl"
        crl.write_bytes(clients_authority.revocation_list())
        shown = authority.identity("bound-node", dns=("localhost", "mcp-server.lab.internal"))
        node = make_node(
            "bound",
            policy=opa_with_certificates.settings(),
            tls=TlsSettings(cert=shown.cert, key=shown.key, ca=authority.ca),
            overrides={"public_url": f"https://127.0.0.1:{port}"},
            listen={"client_certificates": True},
            identity={
                "issuers": [issuer.settings()],
                "client_certificates": {"tenant": "default"},
            },
        )
        configuration = write_configuration(
            workspace / "nginx-bound",
            authority,
            nodes=[node.port],
            port=port,
            nginx_client_ca=str(clients_authority.ca),
            nginx_client_crl=str(crl),
        )
        nginx = Nginx(configuration, port)
        nginx.start()
        yield Installation(
            url=f"https://127.0.0.1:{port}",
            node=node,
            issuer=issuer,
            ca=authority.ca,
            agent=clients_authority.identity("agent", dns=("agent.example.com",)),
            other=clients_authority.identity("other", dns=("other.example.com",)),
            stranger=authority.identity("stranger", dns=("agent.example.com",)),
            crl=crl,
            nginx=nginx,
        )
        nginx.stop()


@pytest.fixture(autouse=True)
def no_failures(redis_server: RedisServer) -> None:
    """Refused tokens of one address are limited."""
    redis_server.cli("flushall")


def _said(answer: httpx2.Response) -> str:
    message: str = answer.json()["error"]["message"]
    return message


class TestCertificates:
    async def test_a_certificate_signs_its_client_in_with_the_roles_of_its_names(
        self, installation: Installation
    ) -> None:
        answer = await installation.list_tools(shows=installation.agent)

        names = {tool["name"] for tool in answer.json()["result"]["tools"]}
        assert "cmdb_query_assets" in names
        assert "k8s_restart_deployment" not in names  # its issuer may not assert mcp:admin

    async def test_a_certificate_without_a_row_in_the_policy_data_may_do_nothing(
        self, installation: Installation
    ) -> None:
        answer = await installation.list_tools(shows=installation.other)

        assert answer.status_code == 200
        assert "result" not in answer.json() or answer.json()["result"]["tools"] == []

    async def test_a_certificate_of_another_authority_is_refused(
        self, installation: Installation
    ) -> None:
        answer = await installation.list_tools(shows=installation.stranger)

        assert answer.status_code == 400
        assert answer.json()["error"]["data"]["code"] == "bad_certificate"

    async def test_an_expired_certificate_is_refused(
        self, installation: Installation, clients_authority: Authority
    ) -> None:
        expired = clients_authority.identity(
            "expired", dns=("agent.example.com",), lasting=-timedelta(minutes=1)
        )

        answer = await installation.list_tools(shows=expired)

        assert answer.status_code == 400
        assert answer.json()["error"]["data"]["code"] == "bad_certificate"

    async def test_a_certificate_on_the_revocation_list_is_refused_after_a_reload(
        self, installation: Installation, clients_authority: Authority
    ) -> None:
        leaver = clients_authority.identity("leaver", dns=("agent.example.com",))
        before = await installation.list_tools(shows=leaver)

        installation.crl.write_bytes(clients_authority.revocation_list(_certificate(leaver)))
        installation.nginx.send(signal.SIGHUP)

        await eventually(
            lambda: installation.list_tools(shows=leaver), lambda answer: answer.status_code == 400
        )
        other = await installation.list_tools(shows=installation.agent)
        assert (before.status_code, other.status_code) == (200, 200)

    def test_no_session_is_resumed_because_it_would_not_be_verified_again(
        self, installation: Installation
    ) -> None:
        context = client_context(installation.ca)
        context.load_cert_chain(installation.agent.cert, installation.agent.key)
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the client has the session at once
        address = ("127.0.0.1", int(installation.url.rpartition(":")[2]))

        def connect(session: ssl.SSLSession | None) -> ssl.SSLSocket:
            plain = socket.create_connection(address, timeout=30)
            return context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)

        with connect(None) as first, connect(first.session) as second:
            assert not second.session_reused

    @pytest.mark.parametrize("whose", [(), ("--user", "dns:agent.example.com")], ids=["all", "one"])
    async def test_mcpctl_revokes_certificates(
        self,
        installation: Installation,
        postgres: PostgresServer,
        tmp_path: Path,
        whose: tuple[str, ...],
    ) -> None:
        password = tmp_path / "owner"
        password.write_text(postgres.owner_password)
        config = str(installation.node.config)
        owner = ("--owner", postgres.owner, "--password-file", str(password))
        which = ("--issuer", "client-certificates", *whose, "--reason", "test")
        database = yaml.safe_load(installation.node.config.read_text())["database"]["name"]

        done = await asyncio.to_thread(
            CliRunner().invoke, main, ["token", "revoke", *which, "--config", config, *owner]
        )

        assert (done.exit_code, done.output) == (0, "revoked\n")
        try:
            refused = await eventually(
                lambda: installation.list_tools(shows=installation.agent),
                lambda answer: answer.status_code == 401,
            )
            assert "revoked" in _said(refused)
        finally:
            postgres.psql(
                "DELETE FROM identity.revocations WHERE issuer = 'client-certificates'",
                database=database,
            )
        await eventually(
            lambda: installation.list_tools(shows=installation.agent),
            lambda answer: answer.status_code == 200,
        )

    async def test_clients_without_a_certificate_are_served_as_before(
        self, installation: Installation
    ) -> None:
        with_token = await installation.list_tools(installation.issuer.token())
        without = await installation.list_tools()

        assert with_token.status_code == 200
        assert without.status_code == 401

    async def test_a_header_that_claims_a_certificate_is_dropped(
        self, installation: Installation
    ) -> None:
        pem = installation.agent.cert.read_text().replace("\n", "%0A").replace(" ", "%20")

        answer = await installation.list_tools(shows=None, **{HEADER: pem})

        assert answer.status_code == 401


class TestTokensBoundToACertificate:
    async def test_it_is_accepted_with_its_certificate_only(
        self, installation: Installation
    ) -> None:
        token = installation.issuer.token(cnf={"x5t#S256": _x5t(installation.agent)})

        shown = [None, installation.other, installation.agent, installation.other]
        answers = [await installation.list_tools(token, shows=each) for each in shown]

        assert [answer.status_code for answer in answers] == [401, 401, 200, 401]
        assert "connect with that certificate" in _said(answers[0])

    @pytest.mark.parametrize(
        "confirmation",
        [{}, [], "x", {"jwk": {}}, {"kid": "k"}, {"x5t#S256": ""}, {"x5t#S256": 7}, {"jkt": None}],
        ids=str,
    )
    async def test_a_token_that_is_bound_in_another_way_is_refused(
        self, installation: Installation, confirmation: Any
    ) -> None:
        token = installation.issuer.token(cnf=confirmation)

        answer = await installation.list_tools(token, shows=installation.agent)

        assert answer.status_code == 401


class TestTokensBoundToAKey:
    @pytest.fixture
    def key(self) -> SigningKey:
        return SigningKey()

    async def test_it_is_accepted_with_a_proof_that_is_used_once(
        self, installation: Installation, key: SigningKey
    ) -> None:
        token = installation.issuer.token(cnf={"jkt": thumbprint(key)})
        proof = dpop_proof(key, token, f"{installation.url}/mcp")
        another = dpop_proof(key, token, f"{installation.url}/mcp")
        answers = [
            await installation.list_tools_with_proof(token, each)
            for each in (proof, proof, another)
        ]

        assert [answer.status_code for answer in answers] == [200, 401, 200]
        assert "used before" in _said(answers[1])
        challenge = answers[1].headers["www-authenticate"]
        assert challenge.startswith('DPoP algs="ES256 RS256 PS256 EdDSA", ')
        assert 'error="invalid_dpop_proof"' in challenge

    async def test_without_its_proof_it_is_refused(
        self, installation: Installation, key: SigningKey
    ) -> None:
        token = installation.issuer.token(cnf={"jkt": thumbprint(key)})
        of_another_key = dpop_proof(SigningKey(), token, f"{installation.url}/mcp")
        of_another_path = dpop_proof(key, token, f"{installation.url}/tools")
        answers = [
            await installation.list_tools(token),
            await installation.list_tools(token, DPoP=dpop_proof(key, token, "x")),
            await installation.list_tools_with_proof(token, ""),
            await installation.list_tools_with_proof(token, of_another_key),
            await installation.list_tools_with_proof(token, of_another_path),
        ]

        assert {answer.status_code for answer in answers} == {401}

    async def test_while_proofs_cannot_be_compared_the_request_is_not_made(
        self, installation: Installation, key: SigningKey, redis_server: RedisServer
    ) -> None:
        token = installation.issuer.token(cnf={"jkt": thumbprint(key)})
        proof = dpop_proof(key, token, f"{installation.url}/mcp")

        with redis_server.stopped():
            answer = await installation.list_tools_with_proof(token, proof)

        assert answer.status_code == 502
        assert "DPoP proofs cannot be compared" in _said(answer)
        await eventually(
            lambda: installation.list_tools(installation.issuer.token()),
            lambda answer: answer.status_code == 200,
        )

    @pytest.mark.parametrize("bound", ["x5t#S256", "jkt"])
    async def test_rest_refuses_it_without_what_proves_it(
        self, installation: Installation, key: SigningKey, bound: str
    ) -> None:
        proven_by = {"x5t#S256": _x5t(installation.agent), "jkt": thumbprint(key)}
        token = installation.issuer.token(cnf={bound: proven_by[bound]})
        async with installation.client(Authorization=f"Bearer {token}") as http:
            answers = [
                await http.get("/tools"),
                await http.get("/me"),
                await http.post("/tools/cmdb_query_assets/execute", json={}),
            ]

        assert {answer.status_code for answer in answers} == {401}
        assert {answer.json()["error"]["code"] for answer in answers} == {"invalid_token"}

    @pytest.mark.parametrize("bound", ["x5t#S256", "jkt"])
    async def test_stdio_refuses_it(
        self, installation: Installation, key: SigningKey, tmp_path: Path, bound: str
    ) -> None:
        """No proof can be shown there."""
        proven_by = {"x5t#S256": _x5t(installation.agent), "jkt": thumbprint(key)}
        file = tmp_path / "token"
        file.write_text(installation.issuer.token(cnf={bound: proven_by[bound]}))
        config = str(installation.node.config)
        command = (sys.executable, "-m", "mcp_server", "stdio", "--config", config)

        done = await anyio.run_process([*command, "--token-file", str(file)], check=False)

        assert done.returncode != 0
        assert b"the token is bound to" in done.stderr

    async def test_a_token_that_is_not_bound_is_no_dpop_token(
        self, installation: Installation, key: SigningKey
    ) -> None:
        token = installation.issuer.token()
        proof = dpop_proof(key, token, f"{installation.url}/mcp")

        answer = await installation.list_tools_with_proof(token, proof)

        assert answer.status_code == 401
        assert "Authorization: Bearer" in _said(answer)


async def test_the_node_takes_no_certificate_from_who_is_no_trusted_proxy(
    installation: Installation, authority: Authority
) -> None:
    """The listener of a node takes the header over mutual TLS, from the addresses of proxies."""
    proxy = authority.identity("proxy", dns=("localhost",))
    context: ssl.SSLContext = client_context(authority.ca)
    context.load_cert_chain(proxy.cert, proxy.key)
    pem = installation.agent.cert.read_text().replace("\n", "%0A").replace(" ", "%20")
    url = installation.node.url.replace("127.0.0.1", "localhost")
    statuses = []
    for address in ("127.0.0.1", "127.0.0.2"):
        transport = httpx2.AsyncHTTPTransport(verify=context, local_address=address)
        headers = {HEADER: pem, "Host": "127.0.0.1"}
        async with httpx2.AsyncClient(transport=transport, base_url=url, headers=headers) as http:
            statuses.append((await rpc(http, LIST)).status_code)

    assert statuses == [200, 401]


async def test_without_the_setting_a_node_takes_no_certificate_from_its_gateway(
    installation: Installation,
    authority: Authority,
    make_node: Callable[..., McpNode],
    opa_with_certificates: Opa,
) -> None:
    """A gateway that does not know the header passes the one of a client on."""
    shown = authority.identity("unaware-node", dns=("localhost",))
    node = make_node(
        "unaware",
        policy=opa_with_certificates.settings(),
        tls=TlsSettings(cert=shown.cert, key=shown.key, ca=authority.ca),
        identity={"issuers": [installation.issuer.settings()]},
    )
    gateway = authority.identity("gateway", dns=("localhost",))
    context: ssl.SSLContext = client_context(authority.ca)
    context.load_cert_chain(gateway.cert, gateway.key)
    pem = installation.agent.cert.read_text().replace("\n", "%0A").replace(" ", "%20")
    token = installation.issuer.token(cnf={"x5t#S256": _x5t(installation.agent)})
    url = node.url.replace("127.0.0.1", "localhost")
    headers = {HEADER: pem, "Authorization": f"Bearer {token}", "Host": "127.0.0.1"}

    async with httpx2.AsyncClient(verify=context, base_url=url, headers=headers) as http:
        answer = await rpc(http, LIST)

    assert answer.status_code == 401
    assert "connect with that certificate" in _said(answer)
