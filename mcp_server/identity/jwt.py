"""JSON Web Tokens (RFC 7519): the checks that are the same for every issuer."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from jwt.types import Options

from mcp_server.identity.claims import ClaimPaths, numeric_date, require_lifetime, subject_of
from mcp_server.identity.subject import AuthenticationError, Subject

__all__ = ["JwtRules", "UnverifiedJwt", "mint_token", "read_unverified", "verified_subject"]

_MAX_TOKEN_BYTES = 8192

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


@dataclass(frozen=True, slots=True)
class JwtRules:
    """What the tokens of one issuer must be like.

    Attributes:
        name: configured name of the issuer.
        issuer: required `iss`.
        audience: required member of `aud`.
        algorithms: accepted signature algorithms.
        leeway_s: tolerated clock skew in seconds.
        max_lifetime_s: maximum seconds from `iat` to `exp`.
        require: names of further claims that must be there.
        paths: where the attributes of the subject are.
        tenant: the tenant of all subjects; None: the token has it.
    """

    name: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    leeway_s: float
    max_lifetime_s: int
    require: tuple[str, ...] = ()
    paths: ClaimPaths = field(default_factory=ClaimPaths)
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class UnverifiedJwt:
    """A token whose signature was not verified: only for finding its issuer and its key."""

    token: str
    header: Mapping[str, Any]
    issuer: str


def read_unverified(token: str) -> UnverifiedJwt | None:
    """Return the header and the issuer that a token claims; None: it has not the form of a JWT.

    Raises:
        AuthenticationError: the token is too long, is no well-formed JWT, or names no issuer.
    """
    if len(token) > _MAX_TOKEN_BYTES:
        raise AuthenticationError(f"the token is longer than {_MAX_TOKEN_BYTES} bytes")
    if not _COMPACT.fullmatch(token):
        return None
    try:
        decoded = jwt.PyJWS().decode_complete(token, options={"verify_signature": False})
        claims = json.loads(decoded["payload"])
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise AuthenticationError(_MALFORMED) from None
    if not isinstance(claims, dict):
        raise AuthenticationError(_MALFORMED)
    if "iss" not in claims:
        raise AuthenticationError("the token lacks the claim iss")
    # A value of another type is no configured issuer.
    issuer = claims["iss"] if isinstance(claims["iss"], str) else ""
    return UnverifiedJwt(token, decoded["header"], issuer)


def verified_subject(token: str, key: Any, rules: JwtRules) -> Subject:
    """Return the subject of a token after all checks: signature, type, times, audience, claims.

    Args:
        key: the secret, or a public key whose type fits every one of `rules.algorithms`.

    Raises:
        AuthenticationError: a check fails.
    """
    claims = _verified_claims(token, key, rules)
    expires_at = numeric_date(claims, "exp")
    issued_at = numeric_date(claims, "iat")
    if "nbf" in claims:
        numeric_date(claims, "nbf")  # the library accepts digits in a text, too
    require_lifetime(issued_at, expires_at, rules.max_lifetime_s)
    return subject_of(
        claims,
        rules.paths,
        issuer=rules.name,
        tenant=rules.tenant,
        method="jwt",
        expires_at=expires_at + rules.leeway_s,
        issued_at=issued_at,
    )


def _verified_claims(token: str, key: Any, rules: JwtRules) -> dict[str, Any]:
    options: Options = {"require": ["exp", "iat", "iss", "aud", *rules.require]}
    try:
        decoded = jwt.decode_complete(
            token,
            key,
            algorithms=list(rules.algorithms),
            audience=rules.audience,
            issuer=rules.issuer,
            leeway=rules.leeway_s,
            options=options,
        )
    except jwt.MissingRequiredClaimError as error:
        raise AuthenticationError(f"the token lacks the claim {error.claim}") from None
    except jwt.PyJWTError as error:
        for kind, reason in _REASONS:
            if isinstance(error, kind):
                # The library compares the times only after the signature has verified.
                expired = kind is jwt.ExpiredSignatureError
                raise AuthenticationError(reason, expired=expired) from None
        raise AuthenticationError(_MALFORMED) from None
    type_ = decoded["header"].get("typ", "JWT")
    if not isinstance(type_, str) or type_.lower() not in _TYPES:
        raise AuthenticationError("the token's typ must be JWT or at+jwt, or absent")
    claims: dict[str, Any] = decoded["payload"]
    return claims


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
