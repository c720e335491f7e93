"""Whatever a directory's server sends is an answer, or an error that is expected."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sansldap import (
    FilterEquality,
    LDAPClient,
    LDAPResultCode,
    LDAPServer,
    PartialAttribute,
)

from mcp_server.identity.directory.connection import (
    Connection,
    DirectoryUnavailable,
    TooManyEntries,
)


class _Writer:
    """A connection on which everything is sent at once."""

    def write(self, data: bytes) -> None:
        """Send nothing."""

    async def drain(self) -> None:
        """Wait for nothing."""


async def _over(answer: bytes, work: str) -> Any:
    reader = asyncio.StreamReader()
    reader.feed_data(answer)
    reader.feed_eof()
    connection = Connection(reader, cast(asyncio.StreamWriter, _Writer()))
    if work == "bind":
        return await connection.bind("cn=x", "password")
    return await connection.search("dc=x", FilterEquality("uid", b"x"), ["uid"], limit=2)


def _answers() -> tuple[bytes, bytes]:
    """Return valid answers to a bind, and to a search."""
    client, server = LDAPClient(), LDAPServer()
    client.bind_simple("cn=x", "password")
    server.receive(client.data_to_send())
    server.bind_response(1, diagnostics_message="a" * 200)
    bind = server.data_to_send()
    client, server = LDAPClient(), LDAPServer()
    client.search_request("dc=x")
    server.receive(client.data_to_send())
    server.search_result_reference(1, ["ldap://elsewhere"])
    server.search_result_entry(1, "uid=x,dc=x", [PartialAttribute("uid", [b"x", b"\xff"])])
    server.search_result_done(1)
    return bind, server.data_to_send()


_BIND, _SEARCH = _answers()


def test_valid_answers_are_taken() -> None:
    result = asyncio.run(_over(_BIND, "bind"))
    entries = asyncio.run(_over(_SEARCH, "search"))

    assert result.result_code is LDAPResultCode.SUCCESS
    assert [(entry.dn, entry.texts("uid")) for entry in entries] == [("uid=x,dc=x", ("x",))]


@pytest.mark.parametrize(("answer", "work"), [(_BIND, "bind"), (_SEARCH, "search")])
def test_an_answer_that_is_cut_off_is_none(answer: bytes, work: str) -> None:
    for length in range(len(answer)):
        with pytest.raises(DirectoryUnavailable):
            asyncio.run(_over(answer[:length], work))


@pytest.mark.parametrize("work", ["bind", "search"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_changed_and_random_answers_raise_nothing_else(work: str, data: st.DataObject) -> None:
    valid = _BIND if work == "bind" else _SEARCH
    if data.draw(st.booleans()):
        answer = bytearray(valid)
        for _ in range(data.draw(st.integers(1, 4))):
            answer[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))
    else:
        answer = bytearray(data.draw(st.binary(max_size=200)))
    try:
        asyncio.run(_over(bytes(answer), work))
    except (DirectoryUnavailable, TooManyEntries):
        return
    assert answer[0] == 0x30


def test_a_bind_without_a_password_is_not_sent() -> None:
    async def bind() -> None:
        connection = Connection(asyncio.StreamReader(), cast(asyncio.StreamWriter, _Writer()))
        await connection.bind("cn=x", "")

    with pytest.raises(ValueError, match="needs a password"):
        asyncio.run(bind())
