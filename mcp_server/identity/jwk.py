"""Public keys in JSON (JWK, RFC 7517), and which of them are used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

__all__ = ["PublicKey", "read_key", "read_keys"]

_MAX_KEYS = 100
_MAX_KID_LENGTH = 256
# RFC 7518 section 3.3 requires 2048 bits; verification with a very long key is slow.
_RSA_BITS = range(2048, 8193)

_PARSERS: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key, and the pinned algorithms for which its type and its owner allow it."""

    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
    algorithms: tuple[str, ...]


def read_keys(document: Mapping[str, Any], algorithms: Collection[str]) -> dict[str, PublicKey]:
    """Return the usable keys of a JWK set by their ids.

    A key without an id, for encryption, of another type or size, or symmetric is left out. An id that
    several keys have is left out as well.
    """
    listed = document.get("keys")
    found: dict[str, PublicKey] = {}
    twice: set[str] = set()
    for entry in listed[:_MAX_KEYS] if isinstance(listed, list) else []:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID_LENGTH:
            continue
        key = read_key(entry, algorithms)
        if key is None:
            continue
        if kid in found:
            twice.add(kid)
        found[kid] = key
    return {kid: key for kid, key in found.items() if kid not in twice}


def read_key(entry: dict[str, Any], algorithms: Collection[str]) -> PublicKey | None:
    """Return a public key (JWK) that verifies signatures of one of the algorithms, else None."""
    if entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    try:
        key = _PARSERS[entry["kty"]](entry)
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError):
        return None
    match key:
        case RSAPublicKey() if key.key_size in _RSA_BITS:
            fitting: tuple[str, ...] = ("RS256", "PS256")
        case EllipticCurvePublicKey(curve=SECP256R1()):
            fitting = ("ES256",)
        case Ed25519PublicKey():
            fitting = ("EdDSA",)
        case _:
            return None
    usable = tuple(
        name for name in fitting if name in algorithms and entry.get("alg", name) == name
    )
    return PublicKey(key, usable) if usable else None
