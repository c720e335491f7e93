"""JSON Web Tokens (RFC 7519) signed with a shared secret."""

from __future__ import annotations

import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mcp_server.identity.subject import AuthenticationError, Subject
from mcp_server.settings import JwtSettings, SettingsError

__all__ = ["JwtVerifier", "derived_key", "mint_token"]

_MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key of at least the hash's size
_CACHE_SIZE = 4096
_MAX_TOKEN_BYTES = 8192
_MAX_ID_LENGTH = 256
_LATEST = 253_402_300_799  # the last second of the year 9999
_REQUIRED_CLAIMS = ("exp", "iat", "iss", "aud", "sub", "roles", "tenant")

# Base64url without padding (RFC 7515 section 2). The library accepts padding, and so several texts for
# one token.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")
# Of access tokens (RFC 9068 section 2.1). A token for another purpose, such as id+jwt, has another type;
# it must not be accepted in place of an access token (RFC 8725 section 3.11).
_TYPES = frozenset(("jwt", "at+jwt", "application/at+jwt"))

_NUMERIC_DATE = "a number of seconds since 1970, no later than the year 9999"
_MALFORMED = f"the token is not a well-formed JWT, where exp, iat and nbf are {_NUMERIC_DATE}"

_REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "the token has expired; ask for a new one"),
    (jwt.ImmatureSignatureError, "the token is not valid yet; check the clocks"),
    (jwt.InvalidAudienceError, "the token was issued for another audience"),
    (jwt.InvalidIssuerError, "the token comes from an issuer that is not accepted here"),
    (jwt.InvalidIssuedAtError, "the token's iat is not acceptable"),
    (jwt.InvalidSignatureError, "the token's signature does not verify"),
    (jwt.InvalidAlgorithmError, "the token's algorithm is not accepted here"),
)


class JwtVerifier:
    """Verifies tokens against one issuer, audience and secret.

    A verified token is cached until it expires, so that a busy client costs one signature check, not one
    for each call. The cache is bounded, and its key is the whole token.

    Args:
        secret: the secret, if its file was already read (a pipe can be read only once).
    """

    def __init__(self, settings: JwtSettings, secret: str | None = None) -> None:
        self._secret = settings.secret.reveal() if secret is None else secret
        if len(self._secret.encode()) < _MIN_SECRET_BYTES:
            raise SettingsError(
                f"the JWT secret in {settings.secret.file} is shorter than {_MIN_SECRET_BYTES} bytes "
                "(RFC 7518 section 3.2)"
            )
        self._settings = settings
        self._verified: OrderedDict[str, Subject] = OrderedDict()

    def key_for(self, purpose: str, length: int) -> bytes:
        """Return a key for another purpose, which all nodes share; see `derived_key`."""
        return derived_key(self._secret, purpose, length)

    def verify(self, token: str) -> Subject:
        """Return the subject of `token`; see `TokenVerifier.verify`."""
        if (known := self._verified.get(token)) is not None:
            if not known.expired(self._settings.leeway_s):
                return known
            del self._verified[token]
        if len(token) > _MAX_TOKEN_BYTES:
            raise AuthenticationError(f"the token is longer than {_MAX_TOKEN_BYTES} bytes")
        claims = self._claims(token)
        lifetime_s = _numeric_date(claims, "exp") - _numeric_date(claims, "iat")
        if lifetime_s > self._settings.max_lifetime_s:
            raise AuthenticationError(
                f"the token is made for {lifetime_s:.0f} seconds (from iat to exp); "
                f"accepted are up to {self._settings.max_lifetime_s}"
            )
        subject = _subject(claims)
        self._verified[token] = subject
        if len(self._verified) > _CACHE_SIZE:
            self._verified.popitem(last=False)
        return subject

    def _claims(self, token: str) -> dict[str, Any]:
        if not _COMPACT.fullmatch(token):
            raise AuthenticationError(_MALFORMED)
        try:
            decoded = jwt.decode_complete(
                token,
                self._secret,
                algorithms=list(self._settings.algorithms),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_s,
                options={"require": list(_REQUIRED_CLAIMS)},
            )
            kind = decoded["header"].get("typ", "JWT")
            if not isinstance(kind, str) or kind.lower() not in _TYPES:
                raise AuthenticationError("the token's typ must be JWT or at+jwt, or absent")
            claims: dict[str, Any] = decoded["payload"]
            return claims
        except jwt.MissingRequiredClaimError as error:
            raise AuthenticationError(f"the token lacks the claim {error.claim}") from None
        except jwt.PyJWTError as error:
            for kind, reason in _REASONS:
                if isinstance(error, kind):
                    raise AuthenticationError(reason) from None
            raise AuthenticationError(_MALFORMED) from None


def _subject(claims: dict[str, Any]) -> Subject:
    return Subject(
        id=_text(claims, "sub"),
        tenant=_text(claims, "tenant"),
        roles=_texts(claims, "roles"),
        scopes=_scopes(claims),
        token_id=_text(claims, "jti") if "jti" in claims else "",
        expires_at=_numeric_date(claims, "exp"),
    )


def _numeric_date(claims: dict[str, Any], name: str) -> float:
    """Return the value of a NumericDate claim, in seconds since 1970 (RFC 7519 section 2)."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise AuthenticationError(f"the claim {name} must be a NumericDate: {_NUMERIC_DATE}")
    return float(value)


def _scopes(claims: dict[str, Any]) -> tuple[str, ...]:
    """Return the scopes of a token (RFC 8693 section 4.2); some issuers write "" for no scopes."""
    value = claims.get("scope", "")
    if not isinstance(value, str):
        raise AuthenticationError("the claim scope must be a string of scopes with spaces between")
    _require_printable("scope", value)
    return tuple(value.split())


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value or len(value) > _MAX_ID_LENGTH:
        raise AuthenticationError(
            f"the claim {name} must be a string of 1 to {_MAX_ID_LENGTH} characters"
        )
    _require_printable(name, value)
    return value


def _texts(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    value = claims[name]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise AuthenticationError(f"the claim {name} must be a list of strings")
    for item in value:
        _require_printable(name, item)
    return tuple(sorted(set(value)))


def _require_printable(name: str, text: str) -> None:
    if not text.isprintable():
        raise AuthenticationError(f"the claim {name} holds characters that cannot be printed")


def derived_key(secret: str, purpose: str, length: int) -> bytes:
    """Return a key derived from a secret (HKDF, RFC 5869); the key does not reveal the secret.

    Args:
        purpose: purpose of the key; keys of different purposes are independent.
        length: length of the key in bytes.
    """
    derivation = HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose.encode())
    return derivation.derive(secret.encode())


def mint_token(
    *,
    secret: str,
    issuer: str,
    audience: str,
    user: str,
    roles: Sequence[str],
    tenant: str,
    ttl_s: int = 3600,
    now: float | None = None,
) -> str:
    """Return a signed HS256 token for `user`.

    Args:
        secret: the shared secret, 32 bytes or more.
        ttl_s: lifetime in seconds.
        now: Unix time of issue; the current time when None.
    """
    issued_at = int(time.time() if now is None else now)
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": user,
        "iat": issued_at,
        "exp": issued_at + ttl_s,
        "jti": str(uuid.uuid4()),
        "roles": list(roles),
        "tenant": tenant,
    }
    return jwt.encode(claims, secret, algorithm="HS256")
