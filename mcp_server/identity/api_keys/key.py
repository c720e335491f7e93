"""The form of an API key: `emcp_ID_SECRET`, recognisable for people, programs and secret scanners."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

__all__ = ["PREFIX", "ApiKey", "new_key", "parse_key"]

PREFIX = "emcp_"
"""The beginning of every API key, and of no JWT."""

_ID_BYTES = 7  # 12 letters of base32
_SECRET_BYTES = 32
_CHECKSUM_BYTES = 4  # CRC-32
_FORM = re.compile(r"emcp_([a-z2-7]{12})_([a-z2-7]{52})([a-z2-7]{7})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key.

    Attributes:
        id: names the key; not secret.
        secret: 256 random bits as 52 letters of base32.
    """

    id: str
    secret: str

    @property
    def text(self) -> str:
        """The key as its owner gets it: with a checksum at the end, which finds typing errors."""
        return f"{PREFIX}{self.id}_{self.secret}{_checksum(self.id, self.secret)}"

    @property
    def secret_hash(self) -> bytes:
        """What is stored in place of the secret.

        One round of SHA-256 without a salt is enough: nobody can try 2**256 secrets, and no two keys
        have the same. A slow hash, as for passwords that people choose, would only slow down calls.
        """
        return hashlib.sha256(self.secret.encode()).digest()


def new_key() -> ApiKey:
    """Return a new key from the system's random numbers."""
    return ApiKey(
        id=_base32(secrets.token_bytes(_ID_BYTES)),
        secret=_base32(secrets.token_bytes(_SECRET_BYTES)),
    )


def parse_key(text: str) -> ApiKey | None:
    """Return the key in a text; None: it has not the form of one, or is mistyped."""
    found = _FORM.fullmatch(text)
    if found is None or _checksum(found[1], found[2]) != found[3]:
        return None
    return ApiKey(found[1], found[2])


def _checksum(key_id: str, secret: str) -> str:
    return _base32(zlib.crc32(f"{key_id}_{secret}".encode()).to_bytes(_CHECKSUM_BYTES))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
