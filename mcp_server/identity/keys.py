"""The public keys of an issuer (JWKS, RFC 7517): fetched, renewed in the background, bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit, urlunsplit

import structlog

from mcp_server.identity.http import IssuerClient, IssuerUnavailable
from mcp_server.identity.jwk import PublicKey, read_keys
from mcp_server.identity.subject import AuthenticationError, IdentityUnavailable
from mcp_server.settings import IssuerSettings, is_loopback

__all__ = ["IssuerKeys"]

# Seconds between two fetches of the keys of one issuer, whatever tokens come.
_MIN_INTERVAL_S = 5.0
# Seconds until the next attempt after a failure.
_RETRY_S = 15.0
# Requests that wait for a fetch; further ones are told to come again.
_MAX_WAITING = 100

_log = structlog.stdlib.get_logger("mcp_server")


class IssuerKeys:
    """The keys of one issuer by their ids (`kid`).

    They are fetched at the start, every `keys_refresh_s`, and when a token names an unknown key, but at
    most once in 5 seconds. While the issuer does not answer, known keys are used for `keys_max_age_s`.

    Args:
        on_removed: called after a key was removed or replaced, for caches of what it signed.
    """

    def __init__(
        self, settings: IssuerSettings, client: IssuerClient, on_removed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._client = client
        self._on_removed = on_removed
        self._keys: Mapping[str, PublicKey] = {}
        self._jwks_uri = None if settings.jwks_uri is None else str(settings.jwks_uri)
        self._discovers = settings.jwks_uri is None
        self._began = -_MIN_INTERVAL_S
        self._succeeded = 0.0
        self._failure: str | None = "they were not fetched yet"
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._waiting = 0

    async def start(self) -> None:
        """Begin to fetch the keys in the background."""
        self._began = asyncio.get_running_loop().time() - _MIN_INTERVAL_S
        self._refreshing = asyncio.create_task(self._refresh())

    async def stop(self) -> None:
        """End all fetches."""
        tasks = [t for t in (self._refreshing, self._next, self._running) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def key(self, kid: str) -> PublicKey:
        """Return a key by its id. A known key never waits.

        Raises:
            AuthenticationError: the issuer has no such key.
            IdentityUnavailable: the keys cannot be fetched at the moment.
        """
        if (found := self._known(kid)) is not None:
            return found
        if self._running is not None:
            await self._wait_for(self._running)
            if (found := self._known(kid)) is not None:
                return found
        await self._wait_for(self._scheduled())
        if (found := self._known(kid)) is not None:
            return found
        if self._failure is not None:
            raise self._unavailable()
        raise AuthenticationError("the token's key (kid) is not one of the keys of its issuer")

    def _known(self, kid: str) -> PublicKey | None:
        age_s = asyncio.get_running_loop().time() - self._succeeded
        return self._keys.get(kid) if age_s <= self._settings.keys_max_age_s else None

    def _unavailable(self) -> IdentityUnavailable:
        return IdentityUnavailable(
            f"the keys of the issuer {self._settings.name} cannot be fetched at the moment; try again"
        )

    async def _wait_for(self, fetch: asyncio.Task[None]) -> None:
        if self._waiting >= _MAX_WAITING:
            raise self._unavailable()
        self._waiting += 1
        try:
            # A request that is cancelled does not end the fetch of the others.
            await asyncio.shield(fetch)
        finally:
            self._waiting -= 1

    def _scheduled(self) -> asyncio.Task[None]:
        """Return a fetch that begins from now on, when the interval allows; all waiters share it."""
        if self._next is None:
            self._next = asyncio.create_task(self._fetch_when_due())
        return self._next

    async def _refresh(self) -> None:
        while True:
            await asyncio.shield(self._scheduled())
            refresh_s = self._settings.keys_refresh_s
            await asyncio.sleep(refresh_s if self._failure is None else min(_RETRY_S, refresh_s))

    async def _fetch_when_due(self) -> None:
        if self._running is not None:
            await asyncio.wait([self._running])
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._began + _MIN_INTERVAL_S - clock())
        self._began = clock()
        # Whoever comes from now on may need a later fetch.
        self._running, self._next = asyncio.current_task(), None
        try:
            keys = await self._fetch()
        except IssuerUnavailable as error:
            if self._failure is None or not self._keys:
                _log.warning(
                    "issuer_keys_not_fetched", issuer=self._settings.name, error=str(error)
                )
            self._failure = str(error)
            if self._discovers:
                self._jwks_uri = None
        else:
            if self._failure is not None or keys.keys() != self._keys.keys():
                _log.info("issuer_keys_fetched", issuer=self._settings.name, kids=sorted(keys))
            removed = any(keys.get(kid) != key for kid, key in self._keys.items())
            self._keys, self._succeeded, self._failure = keys, clock(), None
            if removed:
                self._on_removed()
        finally:
            self._running = None

    async def _fetch(self) -> Mapping[str, PublicKey]:
        if self._jwks_uri is None:
            self._jwks_uri = await self._discovered()
        keys = read_keys(await self._client.json_object(self._jwks_uri), self._settings.algorithms)
        if not keys:
            raise IssuerUnavailable(
                f"{self._jwks_uri} holds no key for {', '.join(self._settings.algorithms)}"
            )
        return keys

    async def _discovered(self) -> str:
        """Return the jwks_uri of the issuer's metadata.

        OpenID Connect Discovery 1.0 section 4, or else RFC 8414 section 3. The metadata must name the
        same issuer (section 3.3).
        """
        issuer = self._settings.issuer
        parts = urlsplit(issuer)
        oauth = parts._replace(
            path="/.well-known/oauth-authorization-server" + parts.path.rstrip("/")
        )
        try:
            url = issuer.rstrip("/") + "/.well-known/openid-configuration"
            metadata = await self._client.json_object(url)
        except IssuerUnavailable:
            url = urlunsplit(oauth)
            metadata = await self._client.json_object(url)
        if metadata.get("issuer") != issuer:
            raise IssuerUnavailable(f"{url} describes another issuer than {issuer}")
        found = metadata.get("jwks_uri")
        if not isinstance(found, str) or not _is_safe(found, issuer):
            raise IssuerUnavailable(f"{url} names no jwks_uri that begins with https://")
        return found


def _is_safe(url: str, issuer: str) -> bool:
    with contextlib.suppress(ValueError):
        parts, host = urlsplit(url), urlsplit(issuer).hostname
        local = is_loopback(parts.hostname or "") and is_loopback(host or "")
        return parts.scheme == "https" or (parts.scheme == "http" and local)
    return False
