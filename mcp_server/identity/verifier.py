"""The verifier of bearer tokens: finds by a token's form who can say whose it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Protocol

from mcp_server.identity.jwt import UnverifiedJwt, read_unverified
from mcp_server.identity.subject import AuthenticationError, Subject, TokenVerifier

__all__ = ["Issuer", "Verifier"]

_CACHE_SIZE = 4096


class Issuer(Protocol):
    """Who signs JWTs that are accepted."""

    @property
    def issuer(self) -> str:
        """The claim `iss` of its tokens."""
        ...

    async def subject(self, token: UnverifiedJwt) -> Subject:
        """Return the subject of a token that claims to come from this issuer.

        Raises:
            AuthenticationError: the token is not accepted.
            IdentityUnavailable: the keys of the issuer are not known and cannot be fetched.
        """
        ...


class Verifier:
    """Verifies tokens of several issuers.

    A verified JWT is cached until it expires, so that a busy client costs one signature check, not one
    for each call. The cache is bounded, and its key is the whole token.

    Args:
        issuers: the issuers of JWTs.
        by_prefix: verifiers of tokens that begin with a text, such as API keys; they have caches of
            their own. No prefix is the beginning of a JWT (`ey`).
    """

    def __init__(
        self, issuers: Iterable[Issuer], *, by_prefix: Mapping[str, TokenVerifier] | None = None
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._by_prefix = dict(by_prefix or {})
        self._verified: OrderedDict[str, Subject] = OrderedDict()

    async def verify(self, token: str) -> Subject:
        """Return the subject of `token`; see `TokenVerifier.verify`. A cached token never waits."""
        if (known := self._verified.get(token)) is not None:
            if not known.expired():
                return known
            del self._verified[token]
        for prefix, verifier in self._by_prefix.items():
            if token.startswith(prefix):
                return await verifier.verify(token)
        unverified = read_unverified(token)
        if unverified is None:
            raise AuthenticationError(
                "the token is of no form that is accepted here, such as a JWT"
            )
        issuer = self._issuers.get(unverified.issuer)
        if issuer is None:
            raise AuthenticationError("the token comes from an issuer that is not accepted here")
        subject = await issuer.subject(unverified)
        self._verified[token] = subject
        if len(self._verified) > _CACHE_SIZE:
            self._verified.popitem(last=False)
        return subject
