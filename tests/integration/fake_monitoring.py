"""A Prometheus or an Alertmanager that answers everything with the same, in the place of the real one.

A real one cannot be made to say these things at will. Does not prove when it says them, only what is
made of them.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

__all__ = ["answering", "guarded"]


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncIterator[str]:
    """Give the address of a server that answers every GET with `status` and `body`."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type="application/json")

    async with _serving(answer) as url:
        yield url


@asynccontextmanager
async def guarded(
    headers: Mapping[str, str], body: str, context: ssl.SSLContext
) -> AsyncIterator[str]:
    """Give the https address of a server that answers with `body` where a GET has all the headers.

    A certificate of the client's is refused: a server of others has no authority for it.
    """

    async def answer(request: web.Request) -> web.Response:
        known = all(request.headers.get(name) == value for name, value in headers.items())
        assert request.transport is not None
        if not known or request.transport.get_extra_info("peercert"):
            return web.Response(status=401)
        return web.Response(text=body, content_type="application/json")

    async with _serving(answer, context) as url:
        yield url


@asynccontextmanager
async def _serving(
    answer: Callable[[web.Request], Awaitable[web.Response]], context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    application = web.Application()
    application.add_routes([web.get("/{path:.*}", answer)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        scheme = "http" if context is None else "https"
        yield f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
