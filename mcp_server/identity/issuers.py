"""One configured issuer (`identity.issuers`), whose tokens are JWTs signed with its private keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from mcp_server.identity.claims import ClaimPaths
from mcp_server.identity.http import IssuerClient
from mcp_server.identity.jwt import JwtRules, UnverifiedJwt, verified_subject
from mcp_server.identity.keys import IssuerKeys
from mcp_server.identity.subject import AuthenticationError, Subject
from mcp_server.settings import IssuerSettings

__all__ = ["JwksIssuer"]


class JwksIssuer:
    """An authorization server or identity provider that publishes its keys.

    Args:
        on_key_removed: called after a key was removed or replaced, for caches of what it signed.
    """

    def __init__(self, settings: IssuerSettings, on_key_removed: Callable[[], None]) -> None:
        self.issuer = settings.issuer
        self._client = IssuerClient(ca=settings.ca, timeout_s=settings.timeout_s)
        self._keys = IssuerKeys(settings, self._client, on_key_removed)
        self._rules = JwtRules(
            name=settings.name,
            issuer=settings.issuer,
            audience=settings.audience,
            algorithms=settings.algorithms,
            leeway_s=settings.leeway_s,
            max_lifetime_s=settings.max_lifetime_s,
            paths=ClaimPaths(**dict(settings.claims)),
            tenant=settings.tenant,
        )

    async def start(self) -> None:
        """Begin to fetch the keys; the issuer need not answer yet.

        Raises:
            SettingsError: the file of the CA cannot be used.
        """
        await self._client.start()
        await self._keys.start()

    async def stop(self) -> None:
        """End all fetches and connections."""
        await self._keys.stop()
        await self._client.stop()

    async def subject(self, token: UnverifiedJwt) -> Subject:
        """Return the subject of a token; see `Issuer.subject`."""
        # Before the key is looked up: no other algorithm can cause a fetch.
        if token.header.get("alg") not in self._rules.algorithms:
            raise AuthenticationError("the token's algorithm is not accepted here")
        kid = token.header.get("kid")
        if not isinstance(kid, str):
            raise AuthenticationError("the token does not name its key (kid)")
        key = await self._keys.key(kid)
        rules = dataclasses.replace(self._rules, algorithms=key.algorithms)
        return verified_subject(token.token, key.key, rules)
