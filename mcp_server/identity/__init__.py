"""Who is calling: a bearer token becomes a Subject, or the call ends with 401."""

from mcp_server.identity.jwt import JwtVerifier, mint_token
from mcp_server.identity.subject import AuthenticationError, Subject, TokenVerifier

__all__ = ["AuthenticationError", "JwtVerifier", "Subject", "TokenVerifier", "mint_token"]
