"""Client of a JSON API over HTTP(S)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from mcp_server.infrastructure.tls import RenewedContext, renewed_client_context
from mcp_server.settings import Secret, TlsSettings
from mcp_server.tools.backend.errors import (
    NOT_SENT,
    BackendUnavailable,
    ConnectionBroken,
    ResponseTooLarge,
    SlowResponse,
)
from mcp_server.tools.backend.guard import Guard
from mcp_server.tools.catalog import ToolError

__all__ = ["HttpBackend", "Probe", "no_resend", "parse_json", "read_body"]

_MAX_RESPONSE_BYTES = 32 * 1024 * 1024
_OFFLOAD_BYTES = 256 * 1024
# Two threads only: further work queues, and the event loop keeps most of the interpreter's time.
_PARSERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="parse")
# Retry-After may also be a date (RFC 9110 section 10.2.3), which helps a caller less.
_SECONDS = re.compile(r"[0-9]{1,6}")

_Params = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Probe:
    """A cheap second request that tells an expensive request from an outage.

    Attributes:
        path: path of the request; any response below 500 shows that the backend is up.
        after_s: seconds after the first request at which the probe is sent.
        deadline_s: seconds after the first request until which both responses are awaited.
    """

    path: str
    after_s: float
    deadline_s: float


class HttpBackend:
    """Client of one backend with a JSON API.

    Args:
        name: name of the backend in error messages, such as `Prometheus`.
        url: base URL, without the path of an endpoint.
        tls: client certificate of this server and CA of the backend's certificate.
        ca: CA of the backend's certificate if the backend requires no client certificate. Without `tls`
            and `ca` the CAs of the system apply. Changed files are read again.
        bearer: token for `Authorization: Bearer`; its file is read at start.
        headers: further headers of every request.
        timeout_s: deadline of one call in seconds, retries included.
        classify_error: returns the exception for a 5xx response (HTTP status, parsed body) that is about
            one request and not about the backend, or None for an outage.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        tls: TlsSettings | None = None,
        ca: Path | None = None,
        bearer: Secret | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float,
        classify_error: Callable[[int, Any], ToolError | None] = lambda _status, _body: None,
    ) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._tls = tls
        self._ca = ca
        self._bearer = bearer
        self._headers = dict(headers or {})
        self._classify_error = classify_error
        self._guard = Guard(name, timeout_s=timeout_s)
        self._context: RenewedContext | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool; this sends nothing.

        Raises:
            SettingsError: a certificate, CA or token file cannot be used.
        """
        if self._tls is not None:
            self._context = renewed_client_context(self._tls.ca, self._tls)
        elif self._ca is not None:
            self._context = renewed_client_context(self._ca)
        headers = dict(self._headers)
        if self._bearer is not None:
            headers["Authorization"] = f"Bearer {self._bearer.reveal()}"
        self._session = aiohttp.ClientSession(
            # The guard limits concurrent calls; a probe needs one more connection.
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            middlewares=(no_resend,),
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    @property
    def remaining_s(self) -> float:
        """Seconds for a call that begins now."""
        return self._guard.remaining_s

    async def get(
        self,
        path: str,
        params: _Params = (),
        *,
        headers: Mapping[str, str] | None = None,
        max_bytes: int = _MAX_RESPONSE_BYTES,
        probe: Probe | None = None,
    ) -> tuple[int, Any]:
        """GET `path` and return the status and the parsed JSON body (None if it is not JSON).

        A failed connection is retried once.

        Args:
            probe: request for a late response, so that one expensive request is no outage.

        Raises:
            BackendUnavailable: no response in time, or a 5xx status.
            SlowResponse: no response before the deadline of the probe, which was answered.
            ResponseTooLarge: the body has more than `max_bytes`.
            ToolError: the backend limits our requests, or the error that `classify_error` returned.
        """

        async def request() -> tuple[int, Any]:
            exchange = self._exchange(
                "GET", path, max_bytes=max_bytes, params=params, headers=headers
            )
            return await (exchange if probe is None else self._probed(exchange, probe))

        return await self._guard.call(request, retry=True)

    async def send(
        self,
        method: str,
        path: str,
        *,
        json_body: Any,
        headers: Mapping[str, str] | None = None,
        verify_hint: str,
    ) -> tuple[int, Any]:
        """Send a JSON body that changes something, once; return as `get`.

        Args:
            verify_hint: how a caller finds out whether a change without a response was made.

        Raises:
            BackendUnavailable: the change was not sent.
            OutcomeUnknown: no response in time, or an unusable one.
            ToolError: the backend limits our requests.
        """
        return await self._guard.call(
            lambda: self._exchange(method, path, json=json_body, headers=headers),
            retry=False,
            verify_hint=verify_hint,
        )

    async def _probed(
        self, exchange: Coroutine[Any, Any, tuple[int, Any]], probe: Probe
    ) -> tuple[int, Any]:
        """Return the response; if it is late, probe the backend."""
        main = asyncio.create_task(exchange)
        tasks = [main]
        try:
            await asyncio.wait(tasks, timeout=probe.after_s)
            if not main.done():
                tasks.append(asyncio.create_task(self._exchange("GET", probe.path)))
                await asyncio.wait([main], timeout=probe.deadline_s - probe.after_s)
            if main.done():
                return main.result()
            if not tasks[1].done():
                raise TimeoutError
            tasks[1].result()
            raise SlowResponse(self.name, probe.deadline_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _exchange(
        self, method: str, path: str, *, max_bytes: int = _MAX_RESPONSE_BYTES, **options: Any
    ) -> tuple[int, Any]:
        if self._session is None:
            raise RuntimeError(f"{self.name} was not started")
        async with self._session.request(
            method,
            self._url + path,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._guard.connect_s),
            # A renewed context also keeps the pool from reusing connections of the old one.
            ssl=True if self._context is None else self._context(),
            **options,
        ) as response:
            body = await read_body(response, self.name, max_bytes=max_bytes)
            if response.status == 429:
                wait = response.headers.get("Retry-After", "")
                when = f"in {wait} s" if _SECONDS.fullmatch(wait) else "later"
                raise ToolError(
                    f"{self.name} limits our calls (HTTP 429); try again {when}", retryable=True
                )
            try:
                document = await parse_json(body)
            except (ValueError, RecursionError):
                document = None
            if response.status >= 500:
                raise self._classify_error(response.status, document) or BackendUnavailable(
                    self.name, f"it answered HTTP {response.status}"
                )
            return response.status, document


async def no_resend(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Session middleware that keeps aiohttp from sending a change twice.

    aiohttp resends a PUT if a pooled connection breaks, although the backend may have executed the
    first one.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method == "GET" or isinstance(error, NOT_SENT):
            raise
        raise ConnectionBroken from error


async def read_body(
    response: aiohttp.ClientResponse, backend: str, *, max_bytes: int = _MAX_RESPONSE_BYTES
) -> bytes:
    """Return the body of a response.

    Raises:
        ResponseTooLarge: the body has more than `max_bytes`.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise ResponseTooLarge(backend, max_bytes)
    return bytes(body)


async def parse_json(body: bytes) -> Any:
    """Return the parsed value of a JSON text; a thread parses a long text.

    Raises:
        ValueError, RecursionError: the text is not JSON, or nested too deeply.
    """
    if len(body) <= _OFFLOAD_BYTES:
        return json.loads(body)
    return await asyncio.get_running_loop().run_in_executor(_PARSERS, _parse_releasing_gil, body)


def _parse_releasing_gil(body: bytes) -> Any:
    # The C parser holds the GIL to its end, except where it calls a Python function.
    return json.loads(body, object_hook=lambda found: found)
