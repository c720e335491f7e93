"""The authenticated caller."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

__all__ = ["AuthenticationError", "IdentityUnavailable", "Subject", "TokenVerifier"]


@dataclass(frozen=True, slots=True)
class Subject:
    """An authenticated caller. The policy decides by its attributes; Python code compares none of them.

    Attributes:
        id: stable identifier of the user (`sub`), unique within its issuer and tenant.
        tenant: the tenant whose data the caller works on.
        roles: role names from the token.
        scopes: OAuth scopes of the token, if any.
        groups: group names from the token or the directory.
        token_id: `jti`, or the empty string.
        expires_at: Unix time in seconds after which the token is not accepted.
        issued_at: Unix time in seconds at which the token was issued; revocations compare it.
        issuer: configured name of the issuer; the policy data say which tenants and roles it may assert.
        client_id: the OAuth client that the token was issued to, or the empty string.
        actor: who acts on behalf of the user (`act.sub`, RFC 8693 section 4.1), or the empty string.
        networks: CIDR blocks from which the credential is accepted; none: everywhere.
        method: how the caller was authenticated, such as `jwt`.
        bound_certificate: thumbprint of the client certificate that the token is bound to
            (`cnf.x5t#S256`, RFC 8705 section 3.1), or the empty string.
        bound_key: thumbprint of the key that the token is bound to (`cnf.jkt`, RFC 9449 section 6.1), or
            the empty string.
    """

    id: str
    tenant: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    token_id: str = ""
    expires_at: float = 0.0
    issued_at: float = 0.0
    issuer: str = ""
    client_id: str = ""
    actor: str = ""
    networks: tuple[str, ...] = ()
    method: str = ""
    bound_certificate: str = ""
    bound_key: str = ""

    def expired(self) -> bool:
        """Return whether the subject's token is no longer accepted."""
        return time.time() >= self.expires_at


class AuthenticationError(Exception):
    """No subject: the request ends with 401 before any decision.

    `code` is the error code of RFC 6750 section 3.1 (empty when no token was sent) or of RFC 9449
    section 7.1. The message is the `error_description` of the response and contains no part of the
    token.

    Attributes:
        expired: whether the token is genuine and only too old. It was not guessed.
    """

    def __init__(self, message: str, *, code: str = "invalid_token", expired: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.expired = expired


class IdentityUnavailable(Exception):
    """Whether a token is valid cannot be found out at the moment: the request may be sent again.

    The message says what does not answer.
    """


class TokenVerifier(Protocol):
    """Turns a bearer token into a Subject."""

    async def verify(self, token: str) -> Subject:
        """Return the caller.

        Raises:
            AuthenticationError: the token is not accepted; the message contains the reason.
            IdentityUnavailable: an issuer or a store that is needed does not answer.
        """
        ...
