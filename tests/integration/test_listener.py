"""TLS of the server's own listeners: who may connect, and how a new certificate comes into use."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mcp_server.infrastructure.tls import client_context
from mcp_server.settings import ListenSettings, SettingsError, TlsSettings
from mcp_server.transports.listener import Listener
from tests.integration.servers import Authority, Identity, free_port

pytestmark = pytest.mark.anyio


async def _answer(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls(identity: Identity, ca: Authority) -> TlsSettings:
    return TlsSettings(cert=identity.cert, key=identity.key, ca=ca.ca)


@asynccontextmanager
async def listening(identity: Identity, ca: Authority) -> AsyncIterator[tuple[Listener, str]]:
    settings = ListenSettings(
        port=free_port(), tls=tls(identity, ca), allowed_peers=("nginx.lb1.test",)
    )
    listener = Listener(Starlette(routes=[Route("/", _answer)]), settings, graceful_s=1)
    serving = asyncio.create_task(listener.serve())
    while not listener.started:  # noqa: ASYNC110 # uvicorn has a flag and no event
        await asyncio.sleep(0.01)
    try:
        yield listener, f"https://127.0.0.1:{settings.port}/"
    finally:
        listener.close()
        await serving


async def get(url: str, context: ssl.SSLContext) -> str:
    async with httpx2.AsyncClient(verify=context) as http:
        return (await http.get(url)).text


@pytest.fixture
def balancer(ca: Authority) -> TlsSettings:
    return tls(ca.identity("nginx", dns=["nginx.lb1.test"]), ca)


async def test_a_load_balancer_is_served(ca: Authority, balancer: TlsSettings) -> None:
    async with listening(ca.identity("server"), ca) as (_, url):
        assert await get(url, client_context(ca.ca, balancer)) == "hello"


async def test_a_peer_of_our_authority_with_another_name_is_not(ca: Authority) -> None:
    other = tls(ca.identity("other", dns=["mcp2.test"]), ca)
    async with listening(ca.identity("server"), ca) as (_, url):
        with pytest.raises(httpx2.TransportError):
            await get(url, client_context(ca.ca, other))


async def test_a_peer_without_a_certificate_is_not(ca: Authority) -> None:
    async with listening(ca.identity("server"), ca) as (_, url):
        with pytest.raises(httpx2.TransportError):
            await get(url, client_context(ca.ca))


async def test_a_peer_of_another_authority_is_not(ca: Authority, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = Authority(tmp_path / "foreign")
    stranger = tls(foreign.identity("nginx", dns=["nginx.lb1.test"]), foreign)
    async with listening(ca.identity("server"), ca) as (_, url):
        with pytest.raises(httpx2.TransportError):
            await get(url, client_context(ca.ca, stranger))


async def test_an_intermediate_authority_is_trusted_without_its_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "intermediate").mkdir()
    ca = Authority(tmp_path / "intermediate", parent=Authority(tmp_path / "root"))
    balancer = tls(ca.identity("nginx", dns=["nginx.lb1.test"]), ca)
    async with listening(ca.identity("server"), ca) as (_, url):
        assert await get(url, client_context(ca.ca, balancer)) == "hello"


async def test_a_renewed_certificate_comes_into_use_without_a_restart(
    ca: Authority, balancer: TlsSettings
) -> None:
    identity = ca.identity("server")
    async with listening(identity, ca) as (listener, url):
        before = await _serial(url, ca, balancer)
        ca.identity("server")  # the same files, another certificate
        listener.reload_certificate()
        after = await _serial(url, ca, balancer)

    assert before != after


async def test_what_cannot_be_used_leaves_the_certificate_in_use(
    ca: Authority, balancer: TlsSettings
) -> None:
    identity = ca.identity("server")
    async with listening(identity, ca) as (listener, url):
        before = await _serial(url, ca, balancer)
        certificate = identity.cert.read_bytes()
        ca.identity("server")
        identity.cert.write_bytes(certificate)  # with the key of the other one
        with pytest.raises(SettingsError, match="cannot use the certificate"):
            listener.reload_certificate()
        after = await _serial(url, ca, balancer)

    assert before == after


async def test_another_authority_of_the_balancers_comes_into_use_without_a_restart(
    ca: Authority, tmp_path: Path
) -> None:
    (tmp_path / "next").mkdir()
    following = Authority(tmp_path / "next")
    balancer = tls(following.identity("nginx", dns=["nginx.lb1.test"]), following)
    context = client_context(ca.ca, balancer)
    async with listening(ca.identity("server"), ca) as (listener, url):
        with pytest.raises(httpx2.TransportError):
            await get(url, context)
        ca.ca.write_bytes(ca.ca.read_bytes() + following.ca.read_bytes())
        listener.reload_certificate()

        assert await get(url, context) == "hello"


async def test_a_peer_that_is_away_does_not_hold_up_the_end(
    ca: Authority, balancer: TlsSettings
) -> None:
    settings = ListenSettings(
        port=free_port(), tls=tls(ca.identity("server"), ca), allowed_peers=("nginx.lb1.test",)
    )
    listener = Listener(Starlette(routes=[Route("/", _answer)]), settings, graceful_s=120)
    serving = asyncio.create_task(listener.serve())
    while not listener.started:  # noqa: ASYNC110 # uvicorn has a flag and no event
        await asyncio.sleep(0.01)

    def connect() -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", settings.port))
        return client_context(ca.ca, balancer).wrap_socket(raw, server_hostname="localhost")

    with await asyncio.to_thread(connect):  # it is connected, and reads nothing
        await asyncio.sleep(0.2)
        started = time.monotonic()
        listener.close()
        await serving

    # Far less than the 120 s that a peer which is there is given.
    assert time.monotonic() - started < 60


@asynccontextmanager
async def listening_in_the_clear(**settings: Any) -> AsyncIterator[int]:
    port = free_port()
    app = Starlette(routes=[Route("/", _answer), Route("/mcp", _answer)])
    listener = Listener(app, ListenSettings(port=port, **settings), graceful_s=1)
    serving = asyncio.create_task(listener.serve())
    while not listener.started:  # noqa: ASYNC110 # uvicorn has a flag and no event
        await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        listener.close()
        await serving


async def test_what_is_not_http_is_told_in_json() -> None:
    async with listening_in_the_clear() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"MADE-UP / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    assert head.splitlines()[0] == b"HTTP/1.1 400 Bad Request"
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["error"]["code"] == "bad_request"


async def test_a_request_too_many_is_told_in_json_that_it_was_not_taken() -> None:
    async with (
        listening_in_the_clear(max_concurrency=1) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        rest = await http.get("/")
        mcp = await http.get("/mcp", headers={"X-Request-Id": "r1"})

    assert rest.status_code == mcp.status_code == 503
    assert rest.headers["retry-after"] == mcp.headers["retry-after"] == "1"
    message = "this node has as many requests in progress as it takes; try again"
    assert rest.json()["error"] == {"code": "busy", "message": message}
    assert mcp.json()["error"] == {
        "code": -32012,
        "message": message,
        "data": {"code": "busy", "retryable": True, "request_id": "r1", "retry_after_ms": 1000},
    }


async def _serial(url: str, ca: Authority, balancer: TlsSettings) -> str:
    port = int(url.rsplit(":", 1)[1].strip("/"))
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=client_context(ca.ca, balancer)
    )
    certificate = writer.get_extra_info("peercert")
    writer.close()
    await writer.wait_closed()
    return str(certificate["serialNumber"])
