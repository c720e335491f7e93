"""DPoP proofs (RFC 9449), right and wrong ones."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from typing import Any

from tests.integration.fake_issuer import SigningKey

__all__ = ["dpop_proof", "thumbprint"]


def dpop_proof(
    key: SigningKey,
    token: str,
    url: str,
    *,
    method: str = "POST",
    header: dict[str, Any] | None = None,
    **different: Any,
) -> str:
    """Return a proof for one request with a token.

    Args:
        token: empty: the request has none, as that for the token itself.
        header: members of the header that differ.
        different: claims that differ; None removes one.
    """
    digest = hashlib.sha256(token.encode()).digest()
    claims = {
        "jti": uuid.uuid4().hex,
        "htm": method,
        "htu": url,
        "iat": int(time.time()),
        "ath": _base64url(digest) if token else None,
        **different,
    }
    present = {name: value for name, value in claims.items() if value is not None}
    members = {"typ": "dpop+jwt", "jwk": _public(key), **(header or {})}
    return key.sign(present, **members)


def thumbprint(key: SigningKey) -> str:
    """Return the SHA-256 thumbprint of a key (RFC 7638)."""
    canonical = json.dumps(_public(key), separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _public(key: SigningKey) -> dict[str, Any]:
    return {name: key.jwk[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in key.jwk}


def _base64url(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
