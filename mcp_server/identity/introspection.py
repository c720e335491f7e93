"""Token introspection (RFC 7662): opaque tokens, and JWTs of issuers without algorithms."""

from __future__ import annotations

import re
import time
from typing import Any

import aiohttp
import structlog

from mcp_server.identity.claims import ClaimPaths, numeric_date, require_lifetime, subject_of
from mcp_server.identity.http import IssuerClient, IssuerUnavailable
from mcp_server.identity.jwt import UnverifiedJwt
from mcp_server.identity.subject import AuthenticationError, IdentityUnavailable, Subject
from mcp_server.settings import IntrospectionSettings, IssuerSettings

__all__ = ["Introspection"]

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token, RFC 6750 section 2.1
_MAX_TOKEN_BYTES = 8192
_MAX_RUNNING = 50

_log = structlog.stdlib.get_logger("mcp_server")


class Introspection:
    """The introspection endpoint of one issuer.

    The subject expires after `cache_s` at the latest, so that the issuer is asked again.
    """

    def __init__(self, issuer: IssuerSettings, settings: IntrospectionSettings) -> None:
        self.issuer = issuer.issuer
        self._issuer = issuer
        self._settings = settings
        self._paths = ClaimPaths(**dict(issuer.claims))
        self._client = IssuerClient(ca=issuer.ca, timeout_s=settings.timeout_s)
        self._login: dict[str, str] = {}
        self._running = 0

    async def start(self) -> None:
        """Read the client's secret; this sends nothing.

        Raises:
            SettingsError: the file of the secret or of the CA cannot be used.
        """
        secret = self._settings.client_secret.reveal()
        login = aiohttp.encode_basic_auth(self._settings.client_id, secret)
        self._login = {"Authorization": login}
        await self._client.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._client.stop()

    async def subject(self, token: UnverifiedJwt) -> Subject:
        """Return the subject of a JWT; see `Issuer.subject`."""
        return await self.verify(token.token)

    async def verify(self, token: str) -> Subject:
        """Return the subject of a token; see `TokenVerifier.verify`."""
        if len(token) > _MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
            raise AuthenticationError(
                "the token is longer than 8192 bytes, or has a wrong character"
            )
        if self._running >= _MAX_RUNNING:
            raise self._unavailable()
        self._running += 1
        try:
            claims = await self._client.json_object(
                str(self._settings.url),
                form={"token": token, "token_type_hint": "access_token"},
                headers=self._login,
            )
        except IssuerUnavailable as error:
            _log.warning("introspection_failed", issuer=self._issuer.name, error=str(error))
            raise self._unavailable() from None
        finally:
            self._running -= 1
        return self._subject(claims)

    def _unavailable(self) -> IdentityUnavailable:
        return IdentityUnavailable(
            f"the issuer {self._issuer.name} cannot be asked about the token at the moment; try again"
        )

    def _subject(self, claims: dict[str, Any]) -> Subject:
        issuer, now = self._issuer, time.time()
        if claims.get("active") is not True:
            raise AuthenticationError("the issuer says that the token is not valid")
        if claims.get("iss", issuer.issuer) != issuer.issuer:
            raise AuthenticationError("the token comes from an issuer that is not accepted here")
        audience = claims.get("aud")
        if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
            raise AuthenticationError("the token was issued for another audience")
        if "exp" not in claims:
            raise AuthenticationError("the token lacks the claim exp")
        expires_at = numeric_date(claims, "exp")
        issued_at = numeric_date(claims, "iat") if "iat" in claims else 0.0
        if expires_at + issuer.leeway_s <= now:
            raise AuthenticationError("the token has expired; ask for a new one", expired=True)
        if issued_at:
            require_lifetime(issued_at, expires_at, issuer.max_lifetime_s)
        return subject_of(
            claims,
            self._paths,
            issuer=issuer.name,
            tenant=issuer.tenant,
            method="introspection",
            expires_at=min(expires_at + issuer.leeway_s, now + self._settings.cache_s),
            issued_at=issued_at,
        )
