"""Small JSON documents from issuers: their metadata, their keys, and what they say about a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from mcp_server.infrastructure.tls import RenewedContext, renewed_client_context

__all__ = ["IssuerClient", "IssuerUnavailable"]

_MAX_BYTES = 256 * 1024


class IssuerUnavailable(Exception):
    """An issuer does not answer, or not as it should. The message says what happened."""


class IssuerClient:
    """Client of one issuer. It follows no redirect and accepts no compressed answer.

    Args:
        ca: CA of the issuer's certificate; None: the system's authorities. A changed file is read again.
        timeout_s: deadline of one request in seconds.
    """

    def __init__(self, *, ca: Path | None, timeout_s: float) -> None:
        self._ca = ca
        self._timeout_s = timeout_s
        self._context: RenewedContext | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Prepare for requests; this sends nothing.

        Raises:
            SettingsError: the file of the CA cannot be used.
        """
        self._context = None if self._ca is None else renewed_client_context(self._ca)
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            auto_decompress=False,
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def json_object(
        self,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """GET a JSON object, or POST a form for one.

        Raises:
            IssuerUnavailable: no answer in time, another status than 200, or not a JSON object of at
                most 256 KiB.
        """
        if self._session is None:
            raise RuntimeError("the client was not started")
        try:
            async with self._session.request(
                "GET" if form is None else "POST",
                url,
                data=form,
                headers=headers,
                allow_redirects=False,
                ssl=True if self._context is None else self._context(),
            ) as response:
                if response.status != 200:
                    raise IssuerUnavailable(f"{url} answered HTTP {response.status}")
                body = await _read(response, url)
        except TimeoutError:
            raise IssuerUnavailable(f"{url} did not answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise IssuerUnavailable(
                f"{url} cannot be read: {str(error) or type(error).__name__}"
            ) from None
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise IssuerUnavailable(f"{url} did not answer with a JSON object")
        return document


async def _read(response: aiohttp.ClientResponse, url: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise IssuerUnavailable(f"{url} answered with more than {_MAX_BYTES} bytes")
    return bytes(body)
