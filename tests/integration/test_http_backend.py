"""HttpBackend: changes without a response are sent once, and their outcome is unknown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from mcp_server.tools.backend import (
    BackendUnavailable,
    HttpBackend,
    OutcomeUnknown,
    Probe,
    SlowResponse,
)
from tests.integration.servers import free_port

pytestmark = pytest.mark.anyio

Answer = Callable[[web.Request], Awaitable[web.Response]]


class Service:
    """Answers every request as the test sets it.

    Attributes:
        methods: HTTP methods of the requests so far.
    """

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.methods: list[str] = []
        self.answer: Answer = ok

    async def take(self, request: web.Request) -> web.Response:
        await request.read()
        self.methods.append(request.method)
        return await self.answer(request)


async def ok(_: web.Request) -> web.Response:
    return web.json_response({"done": True})


async def cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def late(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def gateway(_: web.Request) -> web.Response:
    return web.Response(status=504)


async def endless(_: web.Request) -> web.Response:
    return web.Response(body=b" " * (33 * 2**20))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    running = Service()
    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", running.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    host, port = running.url.removeprefix("http://").split(":")
    await web.TCPSite(runner, host, int(port)).start()
    yield running
    await runner.cleanup()


@pytest.fixture
async def backend(service: Service, request: pytest.FixtureRequest) -> AsyncIterator[HttpBackend]:
    """The client; its parameter is the timeout in seconds."""
    asked = HttpBackend("B", service.url, timeout_s=getattr(request, "param", 20))
    await asked.start()
    yield asked
    await asked.stop()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(
    ("answer", "said", "backend"),
    [
        (cut, "B closed the connection", 20),
        (late, "B gave no answer within 4 s", 4),
        (gateway, "B gave no usable answer .*HTTP 504", 20),
        (endless, "B gave no usable answer .*more than 32 MiB", 20),
    ],
    indirect=["backend"],
)
async def test_a_change_without_a_response_is_sent_once_and_unknown(
    service: Service, backend: HttpBackend, method: str, answer: Answer, said: str
) -> None:
    # On a pooled connection aiohttp would resend a PUT by itself.
    await backend.get("/")
    service.answer = answer

    with pytest.raises(OutcomeUnknown, match=f"{said}.*; before you try again, look") as unknown:
        await backend.send(method, "/", json_body={}, verify_hint="look")

    assert not unknown.value.retryable
    assert service.methods == ["GET", method]


async def test_a_change_that_was_not_sent_is_retryable() -> None:
    backend = HttpBackend("B", f"http://127.0.0.1:{free_port()}", timeout_s=20)
    await backend.start()
    try:
        with pytest.raises(
            BackendUnavailable, match="it does not accept connections"
        ) as unavailable:
            await backend.send("PUT", "/", json_body={}, verify_hint="look")
    finally:
        await backend.stop()

    assert unavailable.value.retryable


async def test_a_long_answer_is_read_whole(service: Service, backend: HttpBackend) -> None:
    value = {"result": [{"n": n, "text": "x" * 500} for n in range(2000)]}

    async def long(_: web.Request) -> web.Response:
        return web.Response(text=json.dumps(value))

    service.answer = long

    assert await backend.get("/") == (200, value)


async def test_slow_requests_leave_a_connection_for_the_probe(
    service: Service, backend: HttpBackend
) -> None:
    async def slow(request: web.Request) -> web.Response:
        if request.path != "/cheap":
            await asyncio.Event().wait()
        return web.json_response({})

    service.answer = slow
    probe = Probe("/cheap", after_s=0.5, deadline_s=8)
    told = await asyncio.gather(
        *(backend.get("/slow", probe=probe) for _ in range(32)), return_exceptions=True
    )

    assert [type(each) for each in told] == [SlowResponse] * 32
    assert await backend.get("/cheap") == (200, {})
