"""Bodies of requests: JSON by type and by form, within the limit of size."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from mcp_server.transports import errors, strict_json
from mcp_server.transports.errors import Rejection

__all__ = ["parsed", "read_json", "replay"]

_MAX_CODING = 32


async def read_json(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    """Return the whole body of JSON.

    Raises:
        Rejection: it is not JSON by its type, is compressed, or is too large; as early as possible.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Rejection(
            errors.UNSUPPORTED_MEDIA_TYPE,
            "the Content-Type header must be: application/json",
        )
    coding = ", ".join(headers.getlist("content-encoding")).strip().lower()
    if coding not in ("", "identity"):
        raise Rejection(
            errors.UNSUPPORTED_MEDIA_TYPE,
            f"the Content-Encoding {coding[:_MAX_CODING]!r} is not accepted; send the JSON as it is",
            headers={"Accept-Encoding": "identity"},  # RFC 9110 section 15.5.16
        )
    too_large = Rejection(errors.BODY_TOO_LARGE, f"the body is larger than {max_bytes} bytes")
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise too_large
        more = message.get("more_body", False)
    return bytes(body)


def parsed(body: bytes) -> Any:
    """Return the document in a body; raise Rejection for one that is not strict JSON."""
    try:
        return strict_json.parse(body)
    except strict_json.StrictJsonError as error:
        raise Rejection(errors.PARSE_ERROR, str(error)) from error


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive channel that yields `body` once, and then the further messages of the client."""
    sent = False

    async def receive_again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
