"""`identity`: the tokens that are accepted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mcp_server.settings.directory import DirectorySettings
from mcp_server.settings.model import Model, Secret

__all__ = ["MAX_LIFETIME_S", "SHARED_SECRET", "IdentitySettings", "JwtSettings"]

# The maximum of max_lifetime_s: one day.
MAX_LIFETIME_S = 86_400

SHARED_SECRET = "shared-secret"  # noqa: S105 - a name
"""Name of the issuer that `identity.jwt` describes, in the policy's input and data."""

Leeway = Annotated[float, Field(ge=0, le=300)]
Lifetime = Annotated[int, Field(ge=60, le=MAX_LIFETIME_S)]


class JwtSettings(Model):
    """Tokens signed with a shared secret (RFC 7519, HS256); their issuer's name is `shared-secret`."""

    secret: Secret
    issuer: str
    audience: str
    algorithms: tuple[Literal["HS256"], ...] = ("HS256",)
    leeway_s: Leeway = 30
    max_lifetime_s: Lifetime = 3600
    """Maximum seconds from iat to exp; a token with a longer lifetime is refused, whoever signed it. A
    token cannot be revoked: a stolen token is valid until it expires."""


class IdentitySettings(Model):
    """Who may say who is calling."""

    jwt: JwtSettings
    directory: DirectorySettings | None = None
    """None: nobody signs in with a password, and `POST /auth/token` responds with 404."""
