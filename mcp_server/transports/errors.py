"""The form of errors: that of JSON-RPC with a documented `data` for MCP, one object for all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    PARSE_ERROR,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from starlette.responses import JSONResponse, Response

__all__ = [
    "FORBIDDEN",
    "RATE_LIMITED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "Rejection",
    "Transport",
    "error_data",
    "transport_of",
]

Transport = Literal["mcp", "rest"]

# JSON-RPC 2.0 section 5.1 leaves -32000 to -32099 to implementations; MCP uses -32020 and above.
# roles/nginx/vars/main.yml repeats those that Nginx answers with.
FORBIDDEN = -32010
RATE_LIMITED = -32011
UNAVAILABLE = -32012
UNAUTHENTICATED = -32013

_WORDS = {
    FORBIDDEN: "forbidden",
    RATE_LIMITED: "rate_limited",
    UNAVAILABLE: "unavailable",
    UNAUTHENTICATED: "unauthorized",
    PARSE_ERROR: "invalid_request",
    INVALID_REQUEST: "invalid_request",
    METHOD_NOT_FOUND: "method_not_found",
    INVALID_PARAMS: "invalid_params",
    INTERNAL_ERROR: "internal_error",
    HEADER_MISMATCH: "header_mismatch",
    MISSING_REQUIRED_CLIENT_CAPABILITY: "missing_client_capability",
    UNSUPPORTED_PROTOCOL_VERSION: "unsupported_protocol_version",
}


def transport_of(path: str) -> Transport:
    """Return whose clients ask at `path`, and so in which form they read errors."""
    return "mcp" if path == "/mcp" else "rest"


def error_data(number: int, request_id: str, given: Any = None) -> dict[str, Any]:
    """Return the `data` of an error over MCP: `code`, `retryable` and `request_id`, and what is given.

    Args:
        number: the error's code of JSON-RPC.
        given: what there is already, which stays as it is; anything but an object is dropped.
    """
    return {
        "code": _WORDS.get(number, "error"),
        "retryable": number in (RATE_LIMITED, UNAVAILABLE),
        "request_id": request_id,
        **(given if isinstance(given, dict) else {}),
    }


class Rejection(Exception):
    """A request is not taken; nothing was done.

    Args:
        status: of HTTP.
        code: the word for it.
        message: for a person.
        number: the code of JSON-RPC.
        retry_after_s: seconds after which the same request may be taken; None: it will not be.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        number: int = INVALID_REQUEST,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.number = number
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})

    def response(
        self, transport: Transport, request_id: str, *, answered: str | int | None = None
    ) -> Response:
        """Return the answer: an error of JSON-RPC (MCP), or that of all of REST.

        Args:
            answered: the id of the message that is refused; None: it was not read, or has none. Clients
                take such an answer for theirs.
        """
        headers = self.headers
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        retryable = self.retry_after_s is not None
        data = error_data(self.number, request_id, {"code": self.code, "retryable": retryable})
        if self.retry_after_s is not None:
            headers = {**headers, "Retry-After": str(self.retry_after_s)}
            data["retry_after_ms"] = self.retry_after_s * 1000
        body: dict[str, Any] = {"error": error}
        if transport == "mcp":
            error = {"code": self.number, "message": str(self), "data": data}
            body = {"jsonrpc": "2.0", "id": answered, "error": error}
        return JSONResponse(body, status_code=self.status, headers=headers)
