"""A connection that a test can cut: bytes are passed on between clients and a server."""

from __future__ import annotations

import asyncio
import contextlib

from tests.integration.servers import free_port

__all__ = ["Wire"]


class Wire:
    """Passes on what comes to its port, to and from another port of this machine.

    Attributes:
        port: where clients connect to, on 127.0.0.1.
    """

    def __init__(self, to_port: int) -> None:
        self.port = free_port()
        self._to_port = to_port
        self._clients: list[asyncio.StreamWriter] = []
        self._far: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Wire:
        self._listener = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()
        for server in self._far:
            server.transport.abort()

    def cut(self) -> None:
        """Break all connections of clients; the server does not hear of it, as when a cable breaks."""
        for client in self._clients:
            client.transport.abort()
        self._clients.clear()

    async def _connect(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        far_reader, server = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._clients.append(client)
        self._far.append(server)
        await asyncio.gather(_pass(reader, server), _pass(far_reader, client))


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
