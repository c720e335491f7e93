"""The authenticated caller."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

__all__ = ["AuthenticationError", "Subject", "TokenVerifier"]


@dataclass(frozen=True, slots=True)
class Subject:
    """An authenticated caller. The policy decides by its attributes; Python code compares none of them.

    Attributes:
        id: stable identifier of the user (`sub`).
        tenant: the tenant whose data the caller works on.
        roles: role names from the token.
        scopes: OAuth scopes of the token, if any.
        token_id: `jti`, or the empty string.
        expires_at: Unix time in seconds after which the token is not accepted.
    """

    id: str
    tenant: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    token_id: str = ""
    expires_at: float = 0.0

    def expired(self, leeway_s: float) -> bool:
        """Return whether the subject's token has expired.

        Args:
            leeway_s: tolerated clock skew in seconds.
        """
        return time.time() >= self.expires_at + leeway_s


class AuthenticationError(Exception):
    """No subject: the request ends with 401 before any decision.

    `code` is the error code of RFC 6750 section 3.1 (empty when no token was sent). The message is the
    `error_description` of the response and contains no part of the token.
    """

    def __init__(self, message: str, *, code: str = "invalid_token") -> None:
        super().__init__(message)
        self.code = code


class TokenVerifier(Protocol):
    """Turns a bearer token into a Subject."""

    def verify(self, token: str) -> Subject:
        """Return the caller.

        Raises:
            AuthenticationError: the token is not accepted; the message contains the reason.
        """
        ...
