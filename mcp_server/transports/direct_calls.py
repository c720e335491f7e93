"""Tool calls without the dispatch of the SDK.

For each message the SDK makes a connection, contexts and a chain of middleware, and in the handshake era
a transport and tasks as well. Most messages are tool calls that use none of these. This module answers
them with the SDK's own checks and serialisers. A request that it does not recognise as plain and valid
goes through the SDK, which also makes the errors about malformed requests.

A test sends the same requests both ways and compares the answers byte for byte
(tests/integration/test_direct_calls.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_PARAM_HEADER_PREFIX,
    MCP_PROTOCOL_VERSION_HEADER,
    X_MCP_HEADER_KEY,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
)
from mcp_types import methods
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from mcp_server.gate import Refused
from mcp_server.infrastructure.telemetry import tracing
from mcp_server.transports.http_guard import RequestState
from mcp_server.transports.mcp import McpTransport
from mcp_server.transports.mcp_errors import refusal_error

__all__ = ["DirectCalls", "PlainCall"]

_METHOD = "tools/call"
_MESSAGE = {"jsonrpc", "id", "method", "params"}
_PARAMS = {"name", "arguments", "_meta"}
_PARAM_HEADER = MCP_PARAM_HEADER_PREFIX.lower()
_SESSION_HEADER = "mcp-session-id"


@dataclass(frozen=True, slots=True)
class PlainCall:
    """A valid tool call that needs nothing but an answer.

    Attributes:
        version: the protocol version that the answer is for.
    """

    id: str | int
    version: str
    params: types.CallToolRequestParams


class DirectCalls:
    """Recognises plain tool calls and answers them.

    Args:
        transport: translates between MCP and the gate.
    """

    def __init__(self, transport: McpTransport) -> None:
        self._transport = transport
        self._server: Server[Any] = transport.server
        # A tool may ask for headers that repeat arguments; the SDK compares them.
        self._header_parameters = transport.declares(X_MCP_HEADER_KEY)

    def recognise(self, scope: Scope, message: dict[str, Any]) -> PlainCall | None:
        """Return the call, or None if the SDK has to handle the request.

        Args:
            message: a JSON-RPC 2.0 message.
        """
        params = message.get("params")
        if (
            message.get("method") != _METHOD
            or message.keys() != _MESSAGE
            or not isinstance(params, dict)
            or not params.keys() <= _PARAMS
            or self._header_parameters
            or tracing.is_exporting()
        ):
            return None
        meta = params.get("_meta", {})
        if not isinstance(meta, dict) or "progressToken" in meta:
            return None
        version = _version_of(Headers(scope=scope), message, meta)
        if version is None:
            return None
        try:
            methods.validate_client_request(_METHOD, version, params)
            typed = types.CallToolRequestParams.model_validate(params, by_name=False)
        except (ValidationError, KeyError):
            return None
        return PlainCall(message["id"], version, typed)

    async def answer(self, call: PlainCall, state: RequestState) -> Response:
        """Make the call and return the response.

        Args:
            state: of the HTTP request; notes a node that could not decide.
        """
        try:
            try:
                result = await self._transport.call_tool(state.caller, call.params)
                return self._response(call, self._wire_result(call, result))
            except Refused as refusal:
                state.refusal = refusal
                raise refusal_error(_METHOD, refusal) from refusal
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a documented error
            documented = self._transport.documented(state.caller, _METHOD, error)
            return self._error_response(call, documented)

    def _wire_result(self, call: PlainCall, result: types.CallToolResult) -> dict[str, Any]:
        dumped = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        wire = methods.serialize_server_result(_METHOD, call.version, dumped)
        if call.version in MODERN_PROTOCOL_VERSIONS:
            stamp = {types.SERVER_INFO_META_KEY: self._server.server_info_stamp}
            wire["_meta"] = {**(wire.get("_meta") or {}), **stamp}
        return wire

    def _response(self, call: PlainCall, result: dict[str, Any]) -> Response:
        if call.version in MODERN_PROTOCOL_VERSIONS:
            message = {"jsonrpc": "2.0", "id": call.id, "result": result}
            return Response(
                json.dumps(message, separators=(",", ":")), media_type="application/json"
            )
        answer = types.JSONRPCResponse(jsonrpc="2.0", id=call.id, result=result)
        return _handshake_response(answer)

    def _error_response(self, call: PlainCall, error: MCPError) -> Response:
        answer = types.JSONRPCError(jsonrpc="2.0", id=call.id, error=error.error)
        if call.version not in MODERN_PROTOCOL_VERSIONS:
            return _handshake_response(answer)
        body = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        return Response(
            json.dumps(body, separators=(",", ":")),
            status_code=ERROR_CODE_HTTP_STATUS.get(error.code, 200),
            media_type="application/json",
        )


def _version_of(headers: Headers, message: dict[str, Any], meta: dict[str, Any]) -> str | None:
    """Return the protocol version of a request whose headers fit its message, else None."""
    given = headers.getlist(MCP_PROTOCOL_VERSION_HEADER)
    if len(given) > 1 or _SESSION_HEADER in headers:
        return None
    version = given[0] if given else None
    if version is None or version in HANDSHAKE_PROTOCOL_VERSIONS:
        in_envelope = types.PROTOCOL_VERSION_META_KEY in meta
        return None if in_envelope else version or types.DEFAULT_NEGOTIATED_VERSION
    if version not in MODERN_PROTOCOL_VERSIONS or any(
        name.startswith(_PARAM_HEADER) for name in headers
    ):
        return None
    if find_duplicated_routing_header(headers.items()) is not None:
        return None
    verdict = classify_inbound_request(message, headers=dict(headers))
    return None if isinstance(verdict, InboundLadderRejection) else version


def _handshake_response(answer: types.JSONRPCResponse | types.JSONRPCError) -> Response:
    return Response(
        answer.model_dump_json(by_alias=True, exclude_unset=True),
        headers={"Content-Type": "application/json"},
    )
