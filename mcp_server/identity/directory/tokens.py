"""The tokens that users of the directory get for their password, as an issuer of its own."""

from __future__ import annotations

import time
import uuid

import jwt

from mcp_server.identity.directory.sign_in import DirectoryUser
from mcp_server.identity.jwt import JwtRules, UnverifiedJwt, verified_subject
from mcp_server.identity.shared_secret import SharedSecret
from mcp_server.identity.subject import Subject
from mcp_server.settings import DIRECTORY, JwtSettings

__all__ = ["LIFETIME_S", "DirectoryTokens"]

LIFETIME_S = 3600
"""Seconds for which a token is valid. The directory is not asked again in this time."""

_ALGORITHM = "HS256"
_KEY_BYTES = 32


class DirectoryTokens:
    """Issues and verifies tokens with a key of all nodes, derived from the shared secret.

    The claim `iss` is that of `identity.jwt`, followed by `/directory`: policy data can permit the
    directory's users other tenants and roles than those of a token that an administrator signs. The
    token has groups and no roles: the policy gives roles to groups.
    """

    def __init__(self, settings: JwtSettings, shared_secret: SharedSecret) -> None:
        self.issuer = settings.directory_issuer
        self._key = shared_secret.key_for("directory tokens", _KEY_BYTES)
        self._rules = JwtRules(
            name=DIRECTORY,
            issuer=self.issuer,
            audience=settings.audience,
            algorithms=(_ALGORITHM,),
            leeway_s=settings.leeway_s,
            max_lifetime_s=LIFETIME_S,
            require=("sub", "groups", "tenant"),
        )

    def issue(self, user: DirectoryUser) -> str:
        """Return a token for a user that has signed in."""
        issued_at = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self._rules.audience,
            "sub": user.id,
            "tenant": user.tenant,
            "groups": list(user.groups),
            "iat": issued_at,
            "exp": issued_at + LIFETIME_S,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    async def subject(self, token: UnverifiedJwt) -> Subject:
        """Return the subject of a token; see `Issuer.subject`."""
        return verified_subject(token.token, self._key, self._rules)
