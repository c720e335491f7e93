"""One connection to an LDAP server (RFC 4511), always over TLS.

`sansldap` encodes and decodes messages; the input and output are here, so that every operation has a
deadline and a bounded answer. Search filters are built from values and never parsed from text: no
character of a user's name has a meaning in them. Referrals are not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ssl import SSLContext
from urllib.parse import urlsplit

from sansldap import (
    BindResponse,
    ExtendedOperations,
    ExtendedResponse,
    LDAPClient,
    LDAPError,
    LDAPFilter,
    LDAPMessage,
    LDAPResult,
    LDAPResultCode,
    SearchResultDone,
    SearchResultEntry,
    SearchScope,
)

__all__ = ["Connection", "DirectoryUnavailable", "Entry", "TooManyEntries", "described"]

_PORTS = {"ldaps": 636, "ldap": 389}
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_SEQUENCE = 0x30
_LONG_FORM = 0x80
_MAX_LENGTH_OCTETS = 4


class DirectoryUnavailable(Exception):
    """The directory cannot tell who signs in; the message is for the log."""


class TooManyEntries(Exception):
    """A search matches more entries than it may."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the directory; `values` has the requested attributes by their names in lower case."""

    dn: str
    values: Mapping[str, tuple[bytes, ...]]

    def texts(self, attribute: str) -> tuple[str, ...]:
        """Return the values of an attribute that are text."""
        found = []
        for value in self.values.get(attribute.lower(), ()):
            try:
                found.append(value.decode())
            except UnicodeDecodeError:
                continue
        return tuple(found)

    def text(self, attribute: str) -> str:
        """Return the first value of an attribute, or the empty string."""
        return next(iter(self.texts(attribute)), "")


class Connection:
    """A connection over TLS; `open` makes it.

    Every method raises DirectoryUnavailable when the connection is lost or the server does not keep to
    the protocol; the connection is then useless and must be closed. The caller sets the deadlines.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._session = LDAPClient()

    @classmethod
    async def open(cls, url: str, context: Callable[[], SSLContext]) -> Connection:
        """Connect to a server and verify its certificate.

        Args:
            url: `ldaps://HOST[:PORT]`, or `ldap://HOST[:PORT]` for StartTLS (RFC 4511 section 4.14).
            context: returns the TLS context for a new connection.

        Raises:
            DirectoryUnavailable: no connection, no TLS, or a certificate that does not verify.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        try:
            if parts.scheme == "ldaps":
                return cls(*await asyncio.open_connection(host, port, ssl=context()))
            connection = cls(*await asyncio.open_connection(host, port))
        except OSError as error:
            raise DirectoryUnavailable(f"no connection: {error}") from error
        try:
            await connection._start_tls(context(), host)
        except BaseException:
            connection.close()
            raise
        return connection

    async def bind(self, dn: str, password: str) -> LDAPResult:
        """Authenticate the connection as `dn`, and return the server's result.

        Until a bind has succeeded the connection is anonymous (RFC 4511 section 4.2.1).

        Raises:
            ValueError: the password is empty. Servers accept that from anybody (RFC 4513 section 5.1.2).
        """
        if not password:
            raise ValueError("a bind needs a password")
        self._session.bind_simple(dn, password)
        response = await self._response()
        if not isinstance(response, BindResponse):
            raise DirectoryUnavailable("the response to a bind is of another type")
        return response.result

    async def search(
        self,
        base: str,
        wanted: LDAPFilter,
        attributes: Sequence[str],
        *,
        limit: int,
        scope: SearchScope = SearchScope.SUBTREE,
    ) -> list[Entry]:
        """Return the entries that match; none if the base does not exist.

        Args:
            attributes: the names of the attributes to return.
            limit: maximum number of entries.

        Raises:
            TooManyEntries: more entries than `limit` match.
        """
        self._session.search_request(
            base, scope=scope, size_limit=limit, filter=wanted, attributes=list(attributes)
        )
        entries: list[Entry] = []
        bytes_left = _MAX_ANSWER_BYTES
        while True:
            message, size = await self._message()
            bytes_left -= size
            if bytes_left < 0:
                raise DirectoryUnavailable(f"a search returns over {_MAX_ANSWER_BYTES} bytes")
            match message:
                case SearchResultEntry():
                    entries.append(_entry(message))
                case SearchResultDone(result=result):
                    break
                case _:  # a reference to another server, which is not followed
                    continue
        if result.result_code is LDAPResultCode.SIZE_LIMIT_EXCEEDED or len(entries) > limit:
            raise TooManyEntries(f"more than {limit} entries match below {base}")
        if result.result_code not in (LDAPResultCode.SUCCESS, LDAPResultCode.NO_SUCH_OBJECT):
            raise DirectoryUnavailable(f"a search below {base} failed: {described(result)}")
        return entries

    def close(self) -> None:
        """Close the connection at once."""
        self._writer.transport.abort()

    async def closed(self) -> None:
        """Return when the connection has been closed."""
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _start_tls(self, context: SSLContext, host: str) -> None:
        self._session.extended_request(ExtendedOperations.LDAP_START_TLS.value)
        response = await self._response()
        if (
            not isinstance(response, ExtendedResponse)
            or response.result.result_code is not LDAPResultCode.SUCCESS
        ):
            raise DirectoryUnavailable("the server refuses StartTLS")
        try:
            await self._writer.start_tls(context, server_hostname=host)
        except OSError as error:
            raise DirectoryUnavailable(f"StartTLS failed: {error}") from error
        # What is already here came before TLS, from anybody, and would be taken for the server's answer.
        if await self._has_unread():
            raise DirectoryUnavailable("the server sent data before TLS had started")

    async def _has_unread(self) -> bool:
        try:
            async with asyncio.timeout(0):
                return bool(await self._reader.read(1))
        except TimeoutError:
            return False

    async def _response(self) -> LDAPMessage:
        message, _ = await self._message()
        return message

    async def _message(self) -> tuple[LDAPMessage, int]:
        """Send what is to be sent; return the next message and its size in bytes."""
        try:
            self._writer.write(self._session.data_to_send())
            await self._writer.drain()
            frame = await self._frame()
            (message,) = self._session.receive(frame)
        except OSError as error:
            raise DirectoryUnavailable(f"the connection is lost: {error}") from error
        except asyncio.IncompleteReadError as error:
            raise DirectoryUnavailable("the server closed the connection") from error
        except (LDAPError, ValueError, LookupError, struct.error) as error:
            raise DirectoryUnavailable(f"a message is not of LDAP: {error}") from error
        return message, len(frame)

    async def _frame(self) -> bytes:
        """Return the bytes of the next message: a BER sequence of a known length."""
        head = await self._reader.readexactly(2)
        if head[0] != _SEQUENCE:
            raise ValueError("it does not begin with a sequence")
        length = head[1]
        if length & _LONG_FORM:
            octets = length & ~_LONG_FORM
            if not 1 <= octets <= _MAX_LENGTH_OCTETS:
                raise ValueError("its length is not of a message")
            more = await self._reader.readexactly(octets)
            head, length = head + more, int.from_bytes(more)
        if length > _MAX_ANSWER_BYTES:
            raise ValueError(f"it has over {_MAX_ANSWER_BYTES} bytes")
        return head + await self._reader.readexactly(length)


def described(result: LDAPResult) -> str:
    """Return a result for the log."""
    text = result.result_code.name.lower().replace("_", " ")
    return f"{text} ({result.diagnostics_message})" if result.diagnostics_message else text


def _entry(message: SearchResultEntry) -> Entry:
    return Entry(
        message.object_name,
        {each.name.lower(): tuple(each.values) for each in message.attributes},
    )
