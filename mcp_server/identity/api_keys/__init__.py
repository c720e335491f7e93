"""API keys of service accounts."""

from mcp_server.identity.api_keys.key import PREFIX
from mcp_server.identity.api_keys.verifier import ApiKeys

__all__ = ["PREFIX", "ApiKeys"]
