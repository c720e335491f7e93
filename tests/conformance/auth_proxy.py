"""Adds a bearer token to every request: the conformance suite has no option for one.

Everything else passes as it is, the Host and Origin headers too, which the suite varies on purpose.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import aiohttp
from aiohttp import web

_HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "upgrade"))


@contextmanager
def auth_proxy(port: int, target: str, token: Callable[[], str]) -> Iterator[str]:
    """Serve on a loopback port until the block ends; yield the URL.

    Args:
        target: the origin to pass requests to.
        token: asked for each request, so that a long run never uses an expired one.
    """
    loop = asyncio.new_event_loop()
    started = threading.Event()
    stopped = asyncio.Event()

    async def serve() -> None:
        async with aiohttp.ClientSession(
            auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        ) as session:
            app = web.Application(client_max_size=16 * 1024 * 1024)
            app.router.add_route("*", "/{path:.*}", _passing(session, target, token))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            started.set()
            await stopped.wait()
            await runner.cleanup()
        # Streams that their client left open without reading on.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    if not started.wait(10):
        raise TimeoutError(f"the proxy on port {port} did not start")
    yield f"http://localhost:{port}"
    loop.call_soon_threadsafe(stopped.set)
    thread.join(10)
    loop.close()


def _passing(
    session: aiohttp.ClientSession, target: str, token: Callable[[], str]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def passing(request: web.Request) -> web.StreamResponse:
        headers = request.headers.copy()
        for name in _HOP_BY_HOP:
            headers.popall(name, None)
        headers["Authorization"] = f"Bearer {token()}"
        async with session.request(
            request.method,
            target + request.path_qs,
            headers=headers,
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            passed = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    passed.headers.add(name, value)
            # A client may leave in the middle of a stream.
            with suppress(ConnectionResetError):
                await passed.prepare(request)
                async for chunk in answer.content.iter_any():
                    await passed.write(chunk)
            return passed

    return passing
