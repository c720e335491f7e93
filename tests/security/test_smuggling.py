"""Requests that two HTTP servers could read differently (RFC 9112 section 11.2), as raw bytes to Nginx.

Each holds a second request. Nginx must refuse the whole, or read all of it as the body of the first
request; the second request must never be answered.
"""

from __future__ import annotations

import re
import socket
import ssl

import pytest

from tests.security.attack import token
from tests.security.conftest import Installation

_HIDDEN = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Hidden: 1\r\n\r\n"
_CHUNKED = b"0\r\n\r\n" + _HIDDEN
# What is tried, the headers of the first request, the bytes after them.
_SMUGGLED: tuple[tuple[str, bytes, bytes], ...] = (
    ("length and chunks", b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n", _CHUNKED),
    ("chunks and length", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", _CHUNKED),
    ("two lengths", b"Content-Length: 0\r\nContent-Length: %d\r\n", _HIDDEN),
    ("two lengths in one header", b"Content-Length: 0, %d\r\n", _HIDDEN),
    ("a negative length", b"Content-Length: -1\r\n", _HIDDEN),
    ("a length with a sign", b"Content-Length: +0\r\n", _HIDDEN),
    ("a length in hexadecimal", b"Content-Length: 0x0\r\n", _HIDDEN),
    ("a length of 2**64", b"Content-Length: 18446744073709551616\r\n", _HIDDEN),
    ("an unknown coding", b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n", _HIDDEN),
    ("chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", _CHUNKED),
    ("identity and chunked", b"Transfer-Encoding: identity, chunked\r\n", _CHUNKED),
    ("a space before the colon", b"Transfer-Encoding : chunked\r\nContent-Length: 0\r\n", _HIDDEN),
    ("a folded header", b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n", _HIDDEN),
    ("a vertical tab", b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 0\r\n", _HIDDEN),
    ("a line break alone", b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n", _HIDDEN),
    ("NUL in a header", b"X-A: a\x00b\r\nContent-Length: 0\r\n", _HIDDEN),
    ("a chunk size with a sign", b"Transfer-Encoding: chunked\r\n", b"+0\r\n\r\n" + _HIDDEN),
    (
        "a chunk size of 17 digits",
        b"Transfer-Encoding: chunked\r\n",
        b"1" + b"0" * 16 + b"\r\n" + _HIDDEN,
    ),
    ("two hosts", b"Host: evil.test\r\nContent-Length: 0\r\n", _HIDDEN),
)


def _answers(installation: Installation, request: bytes) -> list[int]:
    """Return the status of every answer to what is sent over one connection."""
    context = ssl.create_default_context(cafile=str(installation.ca))
    with (
        socket.create_connection(("127.0.0.1", installation.nginx.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(request)
        secured.settimeout(1)
        received = b""
        try:
            while piece := secured.recv(65536):
                received += piece
        except TimeoutError:
            pass  # Nginx waits for the rest of a body, or for another request
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


@pytest.mark.parametrize(
    ("headers", "rest"), [each[1:] for each in _SMUGGLED], ids=[each[0] for each in _SMUGGLED]
)
def test_a_smuggled_request_is_not_answered(
    installation: Installation, headers: bytes, rest: bytes
) -> None:
    if b"%d" in headers:
        headers %= len(rest)
    head = (
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + token().encode() + b"\r\n" + headers + b"\r\n"
    )

    answers = _answers(installation, head + rest)

    assert len(answers) <= 1
    assert all(status >= 400 for status in answers)


def test_the_same_bytes_as_two_honest_requests_get_two_answers(installation: Installation) -> None:
    """Without this, a test that reads one answer only would prove nothing."""
    answers = _answers(installation, _HIDDEN + _HIDDEN)

    assert answers == [200, 200]
