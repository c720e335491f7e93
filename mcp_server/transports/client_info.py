"""The name and version that a client program reports (`clientInfo`, unverified)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.server import ServerRequestContext
from mcp_types import CLIENT_INFO_META_KEY

from mcp_server.policy import ClientInfo

__all__ = ["client_of_session", "reported_client"]

_MAX_LENGTH = 256


def reported_client(message: Mapping[str, Any]) -> ClientInfo:
    """Return what a JSON-RPC request reports of the program that sent it.

    Each request of the 2026-07-28 era reports it in its envelope (`_meta`). In the handshake era only
    `initialize` carries `clientInfo`. The server has no sessions, so later requests have none.
    """
    params = message.get("params")
    if not isinstance(params, Mapping):
        return ClientInfo()
    if message.get("method") == "initialize":
        reported = params.get("clientInfo")
    else:
        meta = params.get("_meta")
        reported = meta.get(CLIENT_INFO_META_KEY) if isinstance(meta, Mapping) else None
    if not isinstance(reported, Mapping):
        return ClientInfo()
    return ClientInfo(_text(reported.get("name")), _text(reported.get("version")))


def client_of_session(ctx: ServerRequestContext[Any, Any]) -> ClientInfo:
    """Return what the program at the other end of a session (stdio) reported when it connected."""
    if ctx.session.client_params is None:  # this request connects
        return reported_client({"method": ctx.method, "params": ctx.params})
    reported = ctx.session.client_params.client_info
    return ClientInfo(_text(reported.name), _text(reported.version))


def _text(value: Any) -> str:
    """Return a text or its beginning; "" for a value that is no printable text."""
    return value[:_MAX_LENGTH] if isinstance(value, str) and value.isprintable() else ""
