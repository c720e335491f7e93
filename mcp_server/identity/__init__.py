"""Authentication: turns a bearer token into a Subject; without one, the response is 401."""

from mcp_server.identity.jwt import mint_token
from mcp_server.identity.shared_secret import SharedSecret
from mcp_server.identity.subject import (
    AuthenticationError,
    IdentityUnavailable,
    Subject,
    TokenVerifier,
)
from mcp_server.identity.verifier import VerifiedTokens, Verifier

__all__ = [
    "AuthenticationError",
    "IdentityUnavailable",
    "SharedSecret",
    "Subject",
    "TokenVerifier",
    "VerifiedTokens",
    "Verifier",
    "mint_token",
]
