"""The kinds of errors that clients see, in one table, and the form they have over MCP and over HTTP.

MCP gets a JSON-RPC error with a documented `data`; every other client gets problem details. Both forms
come from the same row of the table, so that a refusal means the same over every transport.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import mcp_types as types
from starlette.responses import JSONResponse, Response

from mcp_server.gate import Limited, NodeUnavailable, OutcomeNotRecorded, Refused, ScopeMissing

__all__ = [
    "ERRORS",
    "ErrorKind",
    "Rejection",
    "Transport",
    "error_data",
    "kind_of",
    "problem",
    "refusal_details",
    "transport_of",
]

Transport = Literal["mcp", "rest"]


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One kind of error.

    Attributes:
        code: the word that programs compare: `error.code` over REST, `error.data.code` over MCP.
        status: the HTTP status; over MCP it is 200 once the message was read.
        number: the JSON-RPC code over MCP. JSON-RPC 2.0 section 5.1 leaves -32000 to -32099 to
            implementations; MCP uses -32020 and below. `roles/nginx/vars/main.yml` repeats the numbers
            of the errors that Nginx sends.
        retryable: whether the same request may succeed a little later, and is safe to repeat.
        meaning: for the documentation.
    """

    code: str
    status: int
    number: int
    retryable: bool
    meaning: str


FORBIDDEN = ErrorKind("forbidden", 403, -32010, False, "the policy refuses; `reasons` say why")
RATE_LIMITED = ErrorKind(
    "rate_limited", 429, -32011, True, "a rate limit is used up until `retry_after_ms` have passed"
)
# Only 503 makes the load balancer ask another node, so it stands for faults that another may not have.
NODE_UNAVAILABLE = ErrorKind(
    "unavailable", 503, -32012, True, "this node cannot decide; another one may"
)
UNAVAILABLE = ErrorKind(
    "unavailable", 502, -32012, True, "a store or a backend is down, for every node"
)
OUTCOME_NOT_RECORDED = ErrorKind(
    "outcome_not_recorded",
    502,
    -32012,
    False,
    "the change may have been made; check its result before you repeat it",
)
DRAINING = ErrorKind("draining", 503, -32012, True, "this node is stopping; another one may answer")
BUSY = ErrorKind("busy", 503, -32012, True, "this node has too many requests in progress")
UNAUTHORIZED = ErrorKind(
    "unauthorized", 401, -32013, False, "no bearer token, or not a valid one (RFC 6750)"
)
INSUFFICIENT_SCOPE = ErrorKind(
    "insufficient_scope",
    403,
    -32014,
    False,
    "the token lacks a scope; `WWW-Authenticate` names it (RFC 6750)",
)
INVALID_REQUEST = ErrorKind(
    "invalid_request",
    400,
    types.INVALID_REQUEST,
    False,
    "the body or the parameters have no valid form",
)
PARSE_ERROR = ErrorKind("invalid_request", 400, types.PARSE_ERROR, False, "the body is not JSON")
BODY_TOO_LARGE = ErrorKind(
    "invalid_request", 413, types.INVALID_REQUEST, False, "the body is too large"
)
BAD_REQUEST = ErrorKind("bad_request", 400, types.INVALID_REQUEST, False, "not HTTP")
UNKNOWN_HOST = ErrorKind(
    "unknown_host", 400, types.INVALID_REQUEST, False, "the Host header names another host"
)
FOREIGN_ORIGIN = ErrorKind(
    "foreign_origin", 403, types.INVALID_REQUEST, False, "a page of another origin made the request"
)
NOT_FOUND = ErrorKind("not_found", 404, types.INVALID_REQUEST, False, "there is no such path")
METHOD_NOT_ALLOWED = ErrorKind(
    "method_not_allowed",
    405,
    types.INVALID_REQUEST,
    False,
    "the path takes other methods (`Allow`)",
)
NOT_ACCEPTABLE = ErrorKind(
    "not_acceptable",
    406,
    types.INVALID_REQUEST,
    False,
    "the Accept header excludes the answer's type",
)
UNSUPPORTED_MEDIA_TYPE = ErrorKind(
    "unsupported_media_type",
    415,
    types.INVALID_REQUEST,
    False,
    "not JSON by its type, or compressed",
)
HEADER_MISMATCH = ErrorKind(
    "header_mismatch",
    400,
    types.HEADER_MISMATCH,
    False,
    "the MCP headers of the request differ from its message",
)
INVALID_ARGUMENTS = ErrorKind(
    "invalid_arguments", 400, types.INVALID_PARAMS, False, "arguments do not fit the tool"
)
TOOL_ERROR = ErrorKind("tool_error", 422, types.INVALID_PARAMS, False, "the tool refuses or fails")
TOOL_UNAVAILABLE = ErrorKind("tool_error", 502, -32012, True, "the tool's backend does not answer")
INTERNAL_ERROR = ErrorKind(
    "internal_error",
    500,
    types.INTERNAL_ERROR,
    False,
    "the server failed; its log has the request's id",
)

IDEMPOTENCY_IN_PROGRESS = ErrorKind(
    "idempotency_in_progress",
    409,
    -32012,
    True,
    "the first request with this Idempotency-Key is still running",
)
IDEMPOTENCY_KEY_REUSED = ErrorKind(
    "idempotency_key_reused",
    422,
    types.INVALID_REQUEST,
    False,
    "the Idempotency-Key belongs to another request",
)
OUTCOME_UNKNOWN = ErrorKind(
    "outcome_unknown",
    502,
    -32012,
    False,
    "the first request with this Idempotency-Key ended without an answer; check the current state "
    "before you repeat it",
)

ERRORS = (
    *(FORBIDDEN, RATE_LIMITED, NODE_UNAVAILABLE, UNAVAILABLE, OUTCOME_NOT_RECORDED, DRAINING, BUSY),
    *(UNAUTHORIZED, INSUFFICIENT_SCOPE, INVALID_REQUEST, PARSE_ERROR, BODY_TOO_LARGE, BAD_REQUEST),
    *(UNKNOWN_HOST, FOREIGN_ORIGIN, NOT_FOUND, METHOD_NOT_ALLOWED, NOT_ACCEPTABLE),
    *(UNSUPPORTED_MEDIA_TYPE, HEADER_MISMATCH, INVALID_ARGUMENTS, TOOL_ERROR, TOOL_UNAVAILABLE),
    *(INTERNAL_ERROR, IDEMPOTENCY_IN_PROGRESS, IDEMPOTENCY_KEY_REUSED, OUTCOME_UNKNOWN),
)
"""All kinds of errors. Several share a JSON-RPC number; the first one is the default for it."""

# Errors that the MCP SDK answers with, by number.
_CODES = {kind.number: kind.code for kind in reversed(ERRORS)} | {
    types.METHOD_NOT_FOUND: "method_not_found",
    types.INVALID_PARAMS: "invalid_params",
    types.MISSING_REQUIRED_CLIENT_CAPABILITY: "missing_client_capability",
    types.UNSUPPORTED_PROTOCOL_VERSION: "unsupported_protocol_version",
}
_RETRYABLE = {kind.number for kind in ERRORS if kind.retryable}


def kind_of(refusal: Refused) -> ErrorKind:
    """Return the kind of a refusal by the gate."""
    match refusal:
        case Limited():
            return RATE_LIMITED
        case NodeUnavailable():
            return NODE_UNAVAILABLE
        case ScopeMissing():
            return INSUFFICIENT_SCOPE
        case OutcomeNotRecorded():
            return OUTCOME_NOT_RECORDED
        case _:
            return UNAVAILABLE if refusal.retryable else FORBIDDEN


def refusal_details(refusal: Refused) -> dict[str, Any]:
    """Return what programs get about a refusal: its reasons, and when to try again."""
    details: dict[str, Any] = {
        "reasons": [reason.model_dump(exclude={"rule"}) for reason in refusal.reasons],
        "retryable": refusal.retryable,
    }
    if isinstance(refusal, Limited):
        details["retry_after_ms"] = refusal.retry_after_ms
    return details


def transport_of(path: str) -> Transport:
    """Return the transport whose clients use `path`, and whose form of errors they read."""
    return "mcp" if path == "/mcp" else "rest"


def error_data(number: int, request_id: str, given: Any = None) -> dict[str, Any]:
    """Return the `data` of an error over MCP: `code`, `retryable`, `request_id`, and what is given.

    Args:
        number: the JSON-RPC code of the error.
        given: members that are there already and stay; anything but an object is dropped.
    """
    return {
        "code": _CODES.get(number, "error"),
        "retryable": number in _RETRYABLE,
        "request_id": request_id,
        **(given if isinstance(given, dict) else {}),
    }


class Rejection(Exception):
    """A request is not accepted; nothing was done.

    Args:
        kind: the row of the table.
        message: for a person.
        code: in place of the kind's, where there is a standard word.
        retry_after_s: for a retryable kind, seconds after which the same request may be accepted.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        code: str | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code or kind.code
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})

    def response(
        self, transport: Transport, request_id: str, *, answered: str | int | None = None
    ) -> Response:
        """Return the HTTP response: a JSON-RPC error for MCP, the object of all REST errors otherwise.

        Args:
            answered: the id of the rejected message; None: it was not read, or has none. Clients match
                the response to their request by it.
        """
        headers = self.headers
        data: dict[str, Any] = {"code": self.code, "retryable": self.kind.retryable}
        if self.retry_after_s is not None:
            headers = {**headers, "Retry-After": str(self.retry_after_s)}
            data["retry_after_ms"] = self.retry_after_s * 1000
        if transport == "rest":
            return problem(self.kind, str(self), request_id, headers=headers, code=self.code)
        number = self.kind.number
        data = error_data(number, request_id, data)
        error = {"code": number, "message": str(self), "data": data}
        body = {"jsonrpc": "2.0", "id": answered, "error": error}
        return JSONResponse(body, status_code=self.kind.status, headers=headers)


def problem(
    kind: ErrorKind,
    message: str,
    request_id: str,
    /,  # `error` may have a member request_id as well
    *,
    headers: Mapping[str, str] | None = None,
    code: str | None = None,
    **details: Any,
) -> Response:
    """Return an error of the REST API: problem details (RFC 9457), and the same as `error`.

    Args:
        message: for a person.
        request_id: the request's id, for `instance`; empty: not known.
        code: in place of the kind's.
        details: further members of `error`.
    """
    code = code or kind.code
    body: dict[str, Any] = {
        "type": f"urn:enterprise-mcp:problem:{code}",
        "title": kind.meaning,
        "status": kind.status,
        "detail": message,
    }
    if request_id:
        body["instance"] = f"urn:enterprise-mcp:request:{request_id}"
    return JSONResponse(
        {**body, "error": {"code": code, "message": message, **details}},
        status_code=kind.status,
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )
