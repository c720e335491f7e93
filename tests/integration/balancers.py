"""A load balancer before a real API server, which spoils answers as a test wants it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from mcp_server.settings import ClusterSettings
from tests.integration.clusters import Cluster
from tests.integration.servers import Authority, free_port

__all__ = ["Balancer", "Fate", "Tunnel"]

Fate = Callable[[web.Request, web.Response], Awaitable[web.Response]]


class Balancer:
    """Passes every request on to the API server of a cluster.

    Attributes:
        passed: method and path of what was passed on.
        answered: method and status of what the API server answered to it.
        fate: gets a request that was passed on and its answer, and returns what the client gets.
        cuts_watches: whether a watch is cut off instead of passed on.
    """

    def __init__(self, cluster: Cluster, authority: Authority) -> None:
        self.port = free_port()
        self.passed: list[tuple[str, str]] = []
        self.answered: list[tuple[str, int]] = []
        self.fate: Fate = _as_it_is
        self.cuts_watches = False
        self._cluster = cluster
        self._identity = authority.identity(f"balancer-{self.port}")
        self._trusted = ssl.create_default_context(cafile=str(authority.ca))

    async def __aenter__(self) -> Balancer:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._client = aiohttp.ClientSession(
            self._cluster.api.url, connector=aiohttp.TCPConnector(ssl=self._trusted)
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._identity.cert, self._identity.key)
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._client.close()

    def settings(self, token: str = "server") -> ClusterSettings:
        """Return settings of the cluster by way of this balancer."""
        direct = self._cluster.settings(token)
        return ClusterSettings.model_validate({**direct.model_dump(), "url": self.url})

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def _pass(self, request: web.Request) -> web.Response:
        if self.cuts_watches and "watch" in request.query:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        self.passed.append((request.method, request.path))
        headers = {name: request.headers[name] for name in ("Authorization", "Accept")}
        if request.can_read_body:
            headers["Content-Type"] = request.headers["Content-Type"]
        async with self._client.request(
            request.method, request.rel_url, headers=headers, data=await request.read()
        ) as answer:
            passed_on = web.Response(
                status=answer.status,
                body=await answer.read(),
                headers={"Content-Type": answer.headers["Content-Type"]},
            )
        self.answered.append((request.method, answer.status))
        return await self.fate(request, passed_on)


async def _as_it_is(_: web.Request, answer: web.Response) -> web.Response:
    return answer


class Tunnel:
    """An HTTP proxy that only connects (CONNECT of RFC 9110).

    Attributes:
        url: its own.
        asked: the places that it was asked to connect to.
    """

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.asked: list[str] = []

    async def __aenter__(self) -> Tunnel:
        host, port = self.url.removeprefix("http://").split(":")
        self._server = await asyncio.start_server(self._connect, host, int(port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        place = head.split()[1].decode()
        self.asked.append(place)
        host, port = place.split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
