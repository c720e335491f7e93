"""An HTTP backend that tools ask: one pooled client each, every call with a deadline."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from mcp_server.settings import TlsSettings
from mcp_server.tls import client_context
from mcp_server.tools.catalog import ToolError

__all__ = ["BackendUnavailable", "HttpBackend"]

_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_READ_ATTEMPTS = 2


class BackendUnavailable(ToolError):
    """The system behind a tool does not answer; the other tools keep working."""

    def __init__(self, backend: str, why: str) -> None:
        super().__init__(f"{backend} is not available: {why}", retryable=True)


class HttpBackend:
    """A JSON API over HTTP(S).

    Args:
        name: how error messages call it, such as `Prometheus`.
        url: its base URL, without a path of an endpoint.
        tls: our client certificate and the CA of the backend's certificate.
        timeout_s: deadline of one call in seconds, retries included.
    """

    def __init__(self, name: str, url: str, *, tls: TlsSettings | None, timeout_s: float) -> None:
        self.name = name
        self._url = url.rstrip("/")
        self._tls = tls
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool (nothing is sent yet)."""
        context: ssl.SSLContext | bool = True
        if self._tls is not None:
            context = client_context(self._tls.ca, self._tls)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=32),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def get(
        self, path: str, params: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    ) -> tuple[int, Any]:
        """GET `path` and return the status and the parsed JSON body (None when it is not JSON).

        A failed connection is tried once more.

        Raises:
            BackendUnavailable: no answer in time, or a server error.
        """
        if self._session is None:
            raise RuntimeError(f"{self.name} was not started")
        try:
            async with asyncio.timeout(self._timeout_s):
                for attempt in range(1, _READ_ATTEMPTS + 1):
                    try:
                        return await self._get(self._session, path, params)
                    except aiohttp.ClientConnectionError:
                        if attempt == _READ_ATTEMPTS:
                            raise
        except TimeoutError:
            raise BackendUnavailable(self.name, f"no answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise BackendUnavailable(self.name, type(error).__name__) from error
        raise AssertionError("the loop above returns or raises")

    async def _get(
        self,
        session: aiohttp.ClientSession,
        path: str,
        params: Mapping[str, str] | Sequence[tuple[str, str]],
    ) -> tuple[int, Any]:
        async with session.get(self._url + path, params=params, allow_redirects=False) as response:
            body = await response.content.read(_MAX_ANSWER_BYTES + 1)
            while not response.content.at_eof() and len(body) <= _MAX_ANSWER_BYTES:
                body += await response.content.read(_MAX_ANSWER_BYTES + 1 - len(body))
            if len(body) > _MAX_ANSWER_BYTES:
                raise ToolError(
                    f"{self.name} answered more than {_MAX_ANSWER_BYTES // 2**20} MiB; ask for less"
                )
            if response.status >= 500:
                raise BackendUnavailable(self.name, f"it answered HTTP {response.status}")
            try:
                return response.status, json.loads(body)
            except ValueError:
                return response.status, None
