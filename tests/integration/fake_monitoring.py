"""A Prometheus or an Alertmanager that answers everything with the same, in the place of the real one.

A real one cannot be made to say these things at will. Does not prove when it says them, only what is
made of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

__all__ = ["answering"]


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncIterator[str]:
    """Give the address of a server that answers every GET with `status` and `body`."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type="application/json")

    application = web.Application()
    application.add_routes([web.get("/{path:.*}", answer)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
