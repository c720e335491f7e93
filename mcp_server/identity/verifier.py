"""The verifier of bearer tokens: chooses the verifier of a token by the token's form."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from mcp_server.identity.client_certificates import ClientCertificate
from mcp_server.identity.dpop import DpopProof
from mcp_server.identity.jwt import UnverifiedJwt, read_unverified
from mcp_server.identity.possession import NOTHING, FirstUse, Presented, require_possession
from mcp_server.identity.subject import AuthenticationError, Subject, TokenVerifier

__all__ = ["Issuer", "VerifiedTokens", "Verifier"]

_CACHE_SIZE = 4096


class Issuer(Protocol):
    """An issuer of accepted JWTs."""

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


class VerifiedTokens:
    """The subjects of verified tokens, until they expire.

    A busy client costs one signature check, not one for each call. The cache is bounded, and its key is
    the whole token.
    """

    def __init__(self) -> None:
        self._subjects: OrderedDict[str, Subject] = OrderedDict()

    def __len__(self) -> int:
        return len(self._subjects)

    def get(self, token: str) -> Subject | None:
        """Return the subject of a cached token that has not expired."""
        subject = self._subjects.get(token)
        if subject is not None and subject.expired():
            del self._subjects[token]
            return None
        return subject

    def add(self, token: str, subject: Subject) -> None:
        """Cache a subject in place of the oldest one, if there are too many."""
        self._subjects[token] = subject
        if len(self._subjects) > _CACHE_SIZE:
            self._subjects.popitem(last=False)

    def clear(self) -> None:
        """Forget all tokens: each is verified again when it comes."""
        self._subjects.clear()


class Verifier:
    """Verifies tokens of several issuers.

    Args:
        issuers: the issuers of JWTs.
        verified: the cache.
        check: called with every subject before it is returned; raises as `verify` if its token is
            revoked.
        opaque: verifier of all tokens that are no JWT and have no such prefix; None: there are none.
        by_prefix: verifiers of tokens that begin with a text, such as API keys; they have caches of
            their own. No prefix is the beginning of a JWT (`ey`).
        first_use: tells whether a DPoP proof is new; None: no token with a proof is accepted.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        *,
        verified: VerifiedTokens | None = None,
        check: Callable[[Subject], None] = lambda _: None,
        opaque: TokenVerifier | None = None,
        by_prefix: Mapping[str, TokenVerifier] | None = None,
        first_use: FirstUse | None = None,
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._by_prefix = dict(by_prefix or {})
        self._verified = VerifiedTokens() if verified is None else verified
        self._check = check
        self._opaque = opaque
        self._first_use = first_use or _never

    async def verify(self, token: str, presented: Presented = NOTHING) -> Subject:
        """Return the subject of `token`; see `TokenVerifier.verify`.

        A cached token never waits, unless a DPoP proof comes with it.

        Args:
            presented: what came with the token; a token that is bound to a key needs its proof.
        """
        subject = await self._subject(token)
        self._check(subject)
        await require_possession(subject, token, presented, self._first_use)
        return subject

    def verify_certificate(self, certificate: ClientCertificate, tenant: str) -> Subject:
        """Return the subject of a client that shows a certificate and no token.

        Args:
            certificate: a certificate that the load balancer has verified.
            tenant: the tenant of all such clients.

        Raises:
            AuthenticationError: the certificate has no usable name, has expired, or is revoked.
            IdentityUnavailable: the list of revocations cannot be read.
        """
        subject = certificate.subject(tenant)
        if subject.expired():
            raise AuthenticationError("the client certificate has expired", expired=True)
        self._check(subject)
        return subject

    async def _subject(self, token: str) -> Subject:
        if (known := self._verified.get(token)) is not None:
            return known
        for prefix, verifier in self._by_prefix.items():
            if token.startswith(prefix):
                return await verifier.verify(token)
        unverified = read_unverified(token)
        if unverified is None and self._opaque is not None:
            subject = await self._opaque.verify(token)
            self._verified.add(token, subject)
            return subject
        if unverified is None:
            raise AuthenticationError(
                "the token is of no form that is accepted here, such as a JWT"
            )
        issuer = self._issuers.get(unverified.issuer)
        if issuer is None:
            raise AuthenticationError("the token comes from an issuer that is not accepted here")
        subject = await issuer.subject(unverified)
        self._verified.add(token, subject)
        return subject


async def _never(_: DpopProof) -> bool:
    return False
