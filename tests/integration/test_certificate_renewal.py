"""Certificates that are renewed under a running node: new connections use them, the others stay."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import timedelta
from http.client import HTTPSConnection
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from mcp_server.infrastructure.database import Database
from mcp_server.infrastructure.tls import client_context, renewed_client_context
from mcp_server.policy import Counters
from mcp_server.settings import SettingsError, TlsSettings
from tests.integration.nodes import LegacyClient, McpNode
from tests.integration.servers import (
    Authority,
    PostgresServer,
    Prometheus,
    RedisServer,
    answers,
)

pytestmark = pytest.mark.anyio

_DEADLINE_S = 180


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls(ca: Authority) -> TlsSettings:
    identity = ca.identity("node")
    return TlsSettings(cert=identity.cert, key=identity.key, ca=ca.ca)


@pytest.fixture
def served(make_node: Callable[..., McpNode], tls: TlsSettings) -> Iterator[McpNode]:
    node = make_node(name="renewing", tls=tls)
    yield node
    node.stop()


async def test_a_renewed_certificate_is_shown_to_new_connections_and_cuts_no_other(
    served: McpNode, ca: Authority, tls: TlsSettings
) -> None:
    context = client_context(ca.ca, tls)
    ports = (served.port, served.telemetry_port)
    with closing(HTTPSConnection("127.0.0.1", served.port, context=context)) as running:
        assert _status(running) == 200
        socket = running.sock
        before = [await _shown(port, context) for port in ports]

        ca.identity("node")  # the same files, another certificate
        renewed = x509.load_pem_x509_certificate(tls.cert.read_bytes()).serial_number
        unasked = [await _shown(port, context) for port in ports]
        served.send(signal.SIGHUP)
        until = time.monotonic() + _DEADLINE_S
        while (after := [await _shown(port, context) for port in ports]) != [renewed, renewed]:
            assert time.monotonic() < until, f"{after} is shown, {renewed} was expected"
            await asyncio.sleep(0.05)

        assert unasked == before
        assert _status(running) == 200
        assert running.sock is socket  # http.client opens another one where the server hung up


async def _shown(port: int, context: ssl.SSLContext) -> int:
    """Return the serial number of the certificate that a new connection gets to see."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
        await writer.wait_closed()
    return x509.load_der_x509_certificate(certificate).serial_number


def _status(connection: HTTPSConnection) -> int:
    connection.request("GET", "/health/live")
    response = connection.getresponse()
    response.read()
    return response.status


class GuardedPrometheus(Prometheus):
    """Prometheus that lets in only who bears a certificate of the authority."""

    def __init__(self, directory: Path, ca: Authority) -> None:
        directory.mkdir()
        web = directory / "web.yml"
        super().__init__(directory, flags=[f"--web.config.file={web}"])
        identity = ca.identity("prometheus")
        server = {
            "cert_file": str(identity.cert),
            "key_file": str(identity.key),
            "client_auth_type": "RequireAndVerifyClientCert",
            "client_ca_file": str(ca.ca),
        }
        web.write_text(yaml.safe_dump({"tls_server_config": server}))
        self.url = f"https://127.0.0.1:{self.port}"
        self._context = client_context(
            ca.ca, TlsSettings(cert=identity.cert, key=identity.key, ca=ca.ca)
        )

    def ready(self) -> bool:
        url = f"{self.url}/-/ready"
        with urllib.request.urlopen(url, timeout=2, context=self._context) as answer:
            return bool(answer.status == 200)


@pytest.fixture
def guarded(tmp_path: Path, ca: Authority) -> Iterator[GuardedPrometheus]:
    server = GuardedPrometheus(tmp_path / "prometheus", ca)
    server.start()
    yield server
    server.stop()


class TestTowardsOthers:
    """No signal is needed: the files are looked at when a connection is made."""

    @pytest.fixture
    async def asking(
        self,
        make_node: Callable[..., McpNode],
        ca: Authority,
        guarded: GuardedPrometheus,
    ) -> AsyncIterator[LegacyClient]:
        """A client of a node whose certificate towards Prometheus has expired."""
        expired = ca.identity("leaf", lasting=timedelta(minutes=-1))
        tls = {"cert": str(expired.cert), "key": str(expired.key), "ca": str(ca.ca)}
        monitoring = {
            "prometheus_url": guarded.url,
            "alertmanager_url": guarded.url,
            "tls": tls,
            "timeout_s": 20,
        }
        node = make_node("node-renewing", overrides={"tools": {"monitoring": monitoring}})
        async with node.http(node.token()) as http:
            yield LegacyClient(http)
        node.stop()

    async def test_a_renewed_certificate_is_shown_to_prometheus(
        self, asking: LegacyClient, ca: Authority
    ) -> None:
        before = (await asking.call("monitoring_query_metrics", {"query": "up"}))["result"]
        ca.identity("leaf")  # the same files, another certificate
        after = (await asking.call("monitoring_query_metrics", {"query": "up"}))["result"]

        assert "Prometheus is not available" in before["content"][0]["text"]
        assert not after.get("isError"), after

    async def test_another_authority_of_postgresql_is_trusted(
        self, postgres: PostgresServer, ca: Authority, tmp_path: Path
    ) -> None:
        trusted = _copied(ca.ca, tmp_path / "trusted.pem")
        database = Database(postgres.settings("postgres").model_copy(update={"ca": trusted}))
        await database.start()
        try:
            before = await answers(database)
            _copied(postgres.ca, trusted)
            after = await answers(database)
        finally:
            await database.stop()

        assert (before, after) == (False, True)

    async def test_another_authority_of_redis_is_trusted(
        self, redis_server: RedisServer, authority: Authority, ca: Authority, tmp_path: Path
    ) -> None:
        trusted = _copied(ca.ca, tmp_path / "trusted.pem")
        counters = Counters(redis_server.settings().model_copy(update={"ca": trusted}))
        try:
            before = await counters.probe()
            _copied(authority.ca, trusted)
            after = await counters.probe()
        finally:
            await counters.stop()

        assert (before, after) == (False, True)

    def test_files_that_do_not_fit_together_change_nothing(
        self, ca: Authority, tls: TlsSettings
    ) -> None:
        renewed = renewed_client_context(tls.ca, tls)
        at_first = renewed()
        unchanged = renewed()
        old = tls.cert.read_bytes()
        ca.identity("node")
        new = tls.cert.read_bytes()

        tls.cert.write_bytes(old)  # with the key of the other one
        between = renewed()
        tls.cert.write_bytes(new)
        at_last = renewed()

        assert unchanged is at_first
        assert between is at_first
        assert at_last is not at_first

    def test_a_file_that_is_not_there_is_named(self, tls: TlsSettings) -> None:
        tls.key.unlink()

        with pytest.raises(
            SettingsError, match=rf"{tls.cert} with the key {tls.key}: No such file"
        ):
            renewed_client_context(tls.ca, tls)


def _copied(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target
