"""An MCP server whose every authorization and rate-limit decision is made by OPA."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("enterprise-mcp")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+source"

__all__ = ["__version__"]
