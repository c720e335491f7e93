"""SIGHUP to a running node: new connections see the renewed certificate, the others stay."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from cryptography import x509

from mcp_server.settings import TlsSettings
from mcp_server.tls import client_context
from tests.integration.nodes import McpNode
from tests.integration.servers import Authority

pytestmark = pytest.mark.anyio

_DEADLINE_S = 30


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
