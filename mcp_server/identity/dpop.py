"""Proofs that a client holds the key that its token is bound to (DPoP, RFC 9449)."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt

from mcp_server.identity.claims import numeric_date
from mcp_server.identity.jwk import read_key
from mcp_server.identity.subject import AuthenticationError

__all__ = ["ALGORITHMS", "PROOF_AGE_S", "DpopProof", "DpopRequest", "read_proof"]

ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")
"""Signature algorithms of proofs that are accepted."""

PROOF_AGE_S = 60
"""Maximum seconds between the making of a proof and its arrival, in both directions of the clocks."""

_MAX_LENGTH = 8192
_MAX_ID_LENGTH = 256
_DEFAULT_PORTS = {"https": 443, "http": 80}
# Of a public key (RFC 7638 section 3.2, RFC 8037 section 2).
_THUMBPRINT_MEMBERS = {
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "RSA": ("e", "kty", "n"),
}


@dataclass(frozen=True, slots=True)
class DpopRequest:
    """A request with the scheme DPoP.

    Attributes:
        proof: the value of its header `DPoP`.
        url: its public address without a query.
    """

    proof: str
    method: str
    url: str


@dataclass(frozen=True, slots=True)
class DpopProof:
    """A proof whose signature and claims fit its request.

    Attributes:
        key: thumbprint of the key (`jkt`).
        id: `jti`; a proof is used once.
    """

    key: str
    id: str


def read_proof(request: DpopRequest, token: str) -> DpopProof:
    """Return the proof of a request (RFC 9449 section 4.3); whether it is new is not checked.

    Raises:
        AuthenticationError: a check fails; the code is `invalid_dpop_proof`.
    """
    try:
        return _checked(request, token)
    except AuthenticationError as error:
        raise _refused(str(error)) from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise _refused("it is no well-formed JWT, or its signature does not verify") from None


def _checked(request: DpopRequest, token: str) -> DpopProof:
    if len(request.proof) > _MAX_LENGTH:
        raise _refused(f"it is longer than {_MAX_LENGTH} bytes")
    header = jwt.get_unverified_header(request.proof)
    if header.get("typ") != "dpop+jwt":
        raise _refused("its typ must be dpop+jwt")
    algorithm, jwk = header.get("alg"), header.get("jwk")
    if algorithm not in ALGORITHMS:
        raise _refused(f"its alg must be one of {', '.join(ALGORITHMS)}")
    key = read_key(jwk, (algorithm,)) if isinstance(jwk, dict) else None
    if key is None or not isinstance(jwk, dict):
        raise _refused("its jwk must be a public key that fits its alg")
    claims = jwt.decode(
        request.proof,
        key.key,
        algorithms=[algorithm],
        options={
            "require": ["jti", "htm", "htu", "iat", "ath"],
            "verify_aud": False,
            "verify_iat": False,
        },
    )
    if abs(time.time() - numeric_date(claims, "iat")) > PROOF_AGE_S:
        raise _refused(f"its iat must be of the last {PROOF_AGE_S} seconds; check the clocks")
    if claims["htm"] != request.method:
        raise _refused("its htm is not the method of the request")
    if not isinstance(claims["htu"], str) or _origin_and_path(claims["htu"]) != _origin_and_path(
        request.url
    ):
        raise _refused("its htu is not the URL of the request")
    if claims["ath"] != _base64url(hashlib.sha256(token.encode()).digest()):
        raise _refused("its ath is not the hash of the token")
    identifier = claims["jti"]
    if not isinstance(identifier, str) or not 0 < len(identifier) <= _MAX_ID_LENGTH:
        raise _refused(f"its jti must be a string of 1 to {_MAX_ID_LENGTH} characters")
    return DpopProof(key=_thumbprint(jwk), id=identifier)


def _thumbprint(jwk: dict[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a key (RFC 7638)."""
    members = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _origin_and_path(url: str) -> tuple[str, str, int | None, str]:
    """Return the parts of a URL that are compared.

    Query and fragment are ignored (RFC 9449 section 4.3).
    """
    parts = urlsplit(url)
    port = parts.port if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme)
    return (parts.scheme, parts.hostname or "", port, parts.path or "/")


def _base64url(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _refused(why: str) -> AuthenticationError:
    prefix = "the DPoP proof is not accepted: "
    text = why if why.startswith(prefix) else prefix + why
    return AuthenticationError(text, code="invalid_dpop_proof")
