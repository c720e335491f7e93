"""Authentication: turns a bearer token into a Subject; without one, the response is 401."""

from mcp_server.identity.jwt import JwtVerifier, mint_token
from mcp_server.identity.subject import AuthenticationError, Subject, TokenVerifier

__all__ = ["AuthenticationError", "JwtVerifier", "Subject", "TokenVerifier", "mint_token"]
