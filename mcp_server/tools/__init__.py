"""The tools. Nothing here knows of HTTP servers, MCP or OPA."""

from mcp_server.tools.catalog import (
    Catalog,
    InvalidArguments,
    Tool,
    ToolContext,
    ToolError,
)

__all__ = ["Catalog", "InvalidArguments", "Tool", "ToolContext", "ToolError"]
