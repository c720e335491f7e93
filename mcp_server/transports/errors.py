"""What a client is told whose request comes to no door: JSON, in the form that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mcp_types import INVALID_REQUEST
from starlette.responses import JSONResponse, Response

__all__ = ["FORBIDDEN", "RATE_LIMITED", "UNAUTHENTICATED", "UNAVAILABLE", "Rejection"]

# JSON-RPC 2.0 section 5.1 leaves -32000 to -32099 to implementations; MCP uses -32020 and above.
# roles/nginx/vars/main.yml repeats those that Nginx answers with.
FORBIDDEN = -32010
RATE_LIMITED = -32011
UNAVAILABLE = -32012
UNAUTHENTICATED = -32013


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

    def response(self, transport: Literal["mcp", "rest"], request_id: str) -> Response:
        """Return the answer: an error of JSON-RPC (MCP), or that of all of REST."""
        headers = self.headers
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        data: dict[str, Any] = {
            "code": self.code,
            "retryable": self.retry_after_s is not None,
            "request_id": request_id,
        }
        if self.retry_after_s is not None:
            headers = {**headers, "Retry-After": str(self.retry_after_s)}
            data["retry_after_ms"] = self.retry_after_s * 1000
        body: dict[str, Any] = {"error": error}
        if transport == "mcp":
            # Without an id: the body was not read, or is no message. Clients take it for theirs.
            error = {"code": self.number, "message": str(self), "data": data}
            body = {"jsonrpc": "2.0", "id": None, "error": error}
        return JSONResponse(body, status_code=self.status, headers=headers)
