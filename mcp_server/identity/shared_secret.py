"""The issuer whose tokens are signed with a secret that this server shares (HS256)."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mcp_server.identity.jwt import JwtRules, UnverifiedJwt, verified_subject
from mcp_server.identity.subject import Subject
from mcp_server.settings import SHARED_SECRET, JwtSettings, SettingsError

__all__ = ["SharedSecret", "derived_key"]

_MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key of at least the hash's size


class SharedSecret:
    """The issuer of `identity.jwt`.

    Args:
        secret: the secret, if its file was already read (a pipe can be read only once).

    Raises:
        SettingsError: the secret cannot be read, or is too short.
    """

    def __init__(self, settings: JwtSettings, secret: str | None = None) -> None:
        self._secret = settings.secret.reveal() if secret is None else secret
        if len(self._secret.encode()) < _MIN_SECRET_BYTES:
            raise SettingsError(
                f"the JWT secret, {settings.secret}, is shorter than {_MIN_SECRET_BYTES} bytes "
                "(RFC 7518 section 3.2)"
            )
        self.issuer = settings.issuer
        self._rules = JwtRules(
            name=SHARED_SECRET,
            issuer=settings.issuer,
            audience=settings.audience,
            algorithms=settings.algorithms,
            leeway_s=settings.leeway_s,
            max_lifetime_s=settings.max_lifetime_s,
            require=("sub", "roles", "tenant"),
        )

    def key_for(self, purpose: str, length: int) -> bytes:
        """Return a key for another purpose, which all nodes share; see `derived_key`."""
        return derived_key(self._secret, purpose, length)

    async def subject(self, token: UnverifiedJwt) -> Subject:
        """Return the subject of a token; see `Issuer.subject`."""
        return verified_subject(token.token, self._secret, self._rules)


def derived_key(secret: str, purpose: str, length: int) -> bytes:
    """Return a key derived from a secret (HKDF, RFC 5869); the key does not reveal the secret.

    Args:
        purpose: purpose of the key; keys of different purposes are independent.
        length: length of the key in bytes.
    """
    derivation = HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose.encode())
    return derivation.derive(secret.encode())
