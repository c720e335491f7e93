"""How a readable document (an MCP resource) is declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mcp_server.tools.catalog import ToolContext

__all__ = ["Document"]


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    Attributes:
        uri: what the policy and clients call it.
        permission: what the policy asks of the reader.
        read: returns the document as JSON text; raises ToolError.
    """

    uri: str
    name: str
    title: str
    description: str
    permission: str
    read: Callable[[ToolContext], Awaitable[str]]
    mime_type: str = "application/json"

    @property
    def family(self) -> str:
        """The first part after the scheme: `cmdb` of `enterprise://cmdb/assets`."""
        return self.uri.partition("://")[2].partition("/")[0]
