"""Who a refused credential claims to be, for the audit log."""

from __future__ import annotations

import re

import jwt

from mcp_server.settings import API_KEYS

__all__ = ["claimed_by"]

_MAX_TOKEN_LENGTH = 8192
_MAX_LENGTH = 256
_API_KEY = re.compile(r"emcp_([a-z2-7]{1,64})(?:_|$)")


def claimed_by(token: str) -> dict[str, str]:
    """Return what a token says of its issuer, subject and id, or the id of an API key.

    Nothing of it was verified. The result holds no credential: neither a signature nor a secret.
    """
    if (key := _API_KEY.match(token)) is not None:
        return {"iss": API_KEYS, "jti": key[1]}
    if len(token) > _MAX_TOKEN_LENGTH:
        return {}
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return {}
    return {
        name: value[:_MAX_LENGTH]
        for name in ("iss", "sub", "jti")
        if isinstance(value := claims.get(name), str) and value.isprintable()
    }
