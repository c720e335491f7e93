"""Errors of calls to a backend, with messages for the caller of a tool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from mcp_server.tools.catalog import ToolError

__all__ = [
    "NOT_SENT",
    "OUTAGES",
    "BackendBusy",
    "BackendUnavailable",
    "CircuitOpen",
    "ConnectionBroken",
    "OutcomeUnknown",
    "ResponseTooLarge",
    "SlowResponse",
    "TimeExhausted",
    "describe_missing_response",
    "describe_outage",
    "parsing",
]


class BackendUnavailable(ToolError):
    """The backend does not answer; tools of other backends keep working."""

    def __init__(self, backend: str, why: str) -> None:
        super().__init__(f"{backend} is not available: {why}", retryable=True)


class CircuitOpen(BackendUnavailable):
    """The circuit breaker refused the call; nothing was sent."""


class TimeExhausted(ToolError):
    """Earlier steps of the tool left too little time for the backend to answer."""

    def __init__(self, backend: str) -> None:
        super().__init__(
            f"no time left to wait for {backend}: earlier steps of the call took too long",
            retryable=True,
        )


class BackendBusy(ToolError):
    """Too many calls are waiting for the backend; nothing was sent."""

    def __init__(self, backend: str, max_concurrent: int) -> None:
        super().__init__(
            f"{max_concurrent} calls of this server are waiting for {backend}; "
            "try again in a few seconds",
            retryable=True,
        )


class OutcomeUnknown(ToolError):
    """A change was sent, and its result is unknown.

    The error is not retryable: a caller who repeats the change may make it twice.

    Args:
        why: what happened instead of a response, such as `closed the connection`.
        verify_hint: what to do before trying again, such as `look at the replicas`.
    """

    def __init__(self, backend: str, why: str, *, verify_hint: str) -> None:
        super().__init__(
            f"it is not known whether the change was made: {backend} {why}; "
            f"before you try again, {verify_hint}"
        )


class ResponseTooLarge(ToolError):
    """The response of a backend exceeds the size limit."""

    def __init__(self, backend: str, max_bytes: int) -> None:
        super().__init__(f"{backend} answered more than {max_bytes // 2**20} MiB; ask for less")


class SlowResponse(ToolError):
    """A healthy backend did not finish one expensive request in time."""

    def __init__(self, backend: str, timeout_s: float) -> None:
        super().__init__(f"{backend} did not finish within {timeout_s:g} s")


class ConnectionBroken(aiohttp.ClientConnectionError):
    """The connection broke after a change was sent."""


OUTAGES = (TimeoutError, OSError, aiohttp.ClientError, BackendUnavailable)
"""Errors that count as failures of the backend; a refusal or a bad query is none."""

NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)
"""Errors after which it is certain that the backend got no request."""

# The first matching type decides.
_DESCRIPTIONS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ConnectionTimeoutError, "no connection within {half} s"),
    (TimeoutError, "no answer within {given} s"),
    (aiohttp.ClientSSLError, "its certificate is not accepted, or it does not speak TLS"),
    (aiohttp.ClientConnectorDNSError, "the name of its host is not known"),
    (aiohttp.ClientConnectorError, "it does not accept connections"),
    (aiohttp.ClientConnectionError, "it closed the connection"),
    (aiohttp.ClientPayloadError, "it closed the connection"),
)


def describe_outage(error: Exception, timeout_s: float) -> str:
    """Return why a backend is not available, in words.

    Args:
        timeout_s: seconds that the call had; half of them for the connection.
    """
    for kind, words in _DESCRIPTIONS:
        if isinstance(error, kind):
            return words.format(given=_seconds(timeout_s), half=_seconds(timeout_s / 2))
    return type(error).__name__


def describe_missing_response(error: Exception, timeout_s: float) -> str:
    """Return what happened instead of the response to a change that was sent, in words."""
    if isinstance(error, TimeoutError):
        return f"gave no answer within {_seconds(timeout_s)} s"
    if isinstance(error, ToolError):
        return f"gave no usable answer ({error})"
    return "closed the connection"


def _seconds(seconds: float) -> str:
    return f"{round(seconds, 2):g}"


@contextmanager
def parsing(backend: str) -> Iterator[None]:
    """Report a response that is not of the backend's API, such as a login page, as an outage.

    The block must do nothing but parse the response.

    Raises:
        BackendUnavailable: the block failed to parse the response.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BackendUnavailable(backend, "its response does not conform to its API") from error
