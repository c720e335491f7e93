"""The encryption of secrets in the configuration: Fernet, with a key from a password or a random key.

Fernet (https://github.com/fernet/spec) is AES-128-CBC with HMAC-SHA256: changed text is refused.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from functools import cached_property

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from mcp_server.settings.model import SettingsError

__all__ = ["MIN_PASSWORD", "Cipher", "decoded_salt", "new_salt"]

MIN_PASSWORD = 12
"""Minimum characters of a password."""

_SALT_BYTES = 16
# OWASP Password Storage Cheat Sheet: 64 MiB; about half a second. The key is derived once per process.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**16, 8, 2


class Cipher:
    """Encrypts and decrypts secrets. The key is read when it is first needed.

    Args:
        source: returns the password, or the random key.
        salt: base64 of the salt of the password; None: `source` returns a random key, 32 bytes in
            base64, such as the output of `openssl rand -base64 32`.
    """

    def __init__(self, source: Callable[[], str], salt: str | None) -> None:
        self._source = source
        self._salt = salt

    @cached_property
    def _fernet(self) -> Fernet:
        given = self._source()
        if self._salt is None:
            return Fernet(_random_key(given))
        if len(given) < MIN_PASSWORD:
            raise SettingsError(
                f"the password of encryption has fewer than {MIN_PASSWORD} characters"
            )
        derivation = Scrypt(
            salt=decoded_salt(self._salt), length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P
        )
        return Fernet(base64.urlsafe_b64encode(derivation.derive(given.encode())))

    def encrypt(self, text: str) -> str:
        """Return the encrypted text.

        Raises:
            SettingsError: the key cannot be used.
        """
        return self._fernet.encrypt(text.encode()).decode()

    def decrypt(self, token: str, what: str) -> str:
        """Return the text.

        Args:
            what: what is decrypted, for messages.

        Raises:
            SettingsError: the key cannot be used, is another one, or the encrypted text was changed.
        """
        try:
            return self._fernet.decrypt(token.encode()).decode()
        except InvalidToken:
            raise SettingsError(
                f"{what} cannot be decrypted: it was encrypted with another password or key than the "
                "section encryption names, or the encrypted text was changed"
            ) from None


def new_salt() -> str:
    """Return a new random salt (base64)."""
    return base64.b64encode(os.urandom(_SALT_BYTES)).decode()


def decoded_salt(salt: str) -> bytes:
    """Return the salt; raise ValueError if it is not at least 16 bytes in base64."""
    try:
        decoded = base64.b64decode(salt, validate=True)
    except binascii.Error:
        decoded = b""
    if len(decoded) < _SALT_BYTES:
        raise ValueError(
            f"must be at least {_SALT_BYTES} random bytes in base64; `mcpctl config encrypt` writes it"
        )
    return decoded


def _random_key(given: str) -> bytes:
    """Return the key in the form of Fernet, which is the URL-safe alphabet of base64."""
    key = given.strip().replace("+", "-").replace("/", "_").encode()
    try:
        right = len(base64.b64decode(key, altchars=b"-_", validate=True)) == 32
    except binascii.Error:
        right = False
    if not right:
        raise SettingsError(
            "the key of encryption must be 32 random bytes in base64: the output of "
            "`openssl rand -base64 32`"
        )
    return key
