"""Cursors of all families: they come back as they left, fit one list; forged ones are refused."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from mcp_server.cli.generate.policy_catalog import every_tool
from mcp_server.identity.shared_secret import derived_key
from mcp_server.tools.catalog import LONGEST_CURSOR, InvalidArguments, ListArguments, ToolError
from mcp_server.tools.cursor import (
    KEY_BYTES,
    Cursor,
    CursorCipher,
    bounded_key,
    fingerprint_of,
)

NOT_OURS = "not a cursor of this tool"
CIPHER = CursorCipher()


class After(Cursor):
    """A place in a list of this test."""

    id: Annotated[str, Field(min_length=1, max_length=512)]


class Numbered(ListArguments):
    """Arguments of a list of this test."""

    name: str


class Named(ListArguments):
    """Arguments of another list."""

    name: str


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=512))
def test_a_cursor_gives_back_what_it_was_made_from(last: str) -> None:
    assert After.decode(CIPHER, After(query="q", id=last).encode(CIPHER), "q").id == last


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidArguments, match=NOT_OURS):
        After.decode(CIPHER, text, "q")


@pytest.mark.parametrize("cursor", ["", "!", "é", "a", "AA\n", "////", "\ud800"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidArguments, match=NOT_OURS):
        After.decode(CIPHER, cursor, "q")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "{}",
        '{"query":"q"}',
        '{"query":"q","id":""}',
        '{"query":"q","id":7}',
        '{"query":"q","id":"a","tenant":"other"}',
        '{"query":["q"],"id":"a"}',
        "[" * 3000,
        '{"id":' * 500,
    ],
)
def test_a_forged_cursor_is_refused_though_the_key_is_right(text: str) -> None:
    with pytest.raises(InvalidArguments, match=NOT_OURS):
        After.decode(CIPHER, CIPHER.encrypt(text.encode()), "q")


def test_a_cursor_tells_its_bearer_nothing_and_takes_nothing_from_him() -> None:
    text = b'{"query":"q","id":"a"}'
    cursor = After(query="q", id="10.0.0.7").encode(CIPHER)
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    unsealed = base64.urlsafe_b64encode(text).decode().rstrip("=")
    changed = base64.urlsafe_b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode().rstrip("=")

    assert b"10.0.0.7" not in raw
    assert After.decode(CIPHER, CIPHER.encrypt(text), "q").id == "a"
    for forged in (unsealed, changed):
        with pytest.raises(InvalidArguments, match=NOT_OURS):
            After.decode(CIPHER, forged, "q")


def test_nodes_that_share_a_secret_read_each_others_cursors() -> None:
    secret, other = "a secret of at least thirty-two bytes", "another secret of thirty-two bytes"

    def cipher(secret: str, purpose: str = "cursors") -> CursorCipher:
        return CursorCipher(derived_key(secret, purpose, KEY_BYTES))

    cursor = After(query="q", id="a").encode(cipher(secret))

    assert After.decode(cipher(secret), cursor, "q").id == "a"
    assert After(query="q", id="a").encode(cipher(secret)) == cursor
    for stranger in (cipher(other), cipher(secret, "else"), CursorCipher()):
        with pytest.raises(InvalidArguments, match=NOT_OURS):
            After.decode(stranger, cursor, "q")


def test_a_cursor_fits_only_the_list_it_was_made_for() -> None:
    first = Numbered(name="a")
    cursor = After(query=fingerprint_of(first), id="7").encode(CIPHER)

    for page in (Numbered(name="a", limit=7, cursor=cursor), Numbered(name="a", fields=["x"])):
        assert After.decode(CIPHER, cursor, fingerprint_of(page)).id == "7"
    for other in (Numbered(name="b"), Named(name="a")):
        with pytest.raises(InvalidArguments, match="a list with other arguments"):
            After.decode(CIPHER, cursor, fingerprint_of(other))


@given(st.text(max_size=5000))
def test_keys_of_any_length_fit_a_cursor(key: str) -> None:
    # Each character is up to four bytes of UTF-8, or six of JSON where it is a control character.
    assert len(bounded_key(key)) <= 264
    assert (bounded_key(key) == key) == (len(key) <= 200)


def test_long_keys_with_the_same_beginning_stay_apart() -> None:
    assert bounded_key("x" * 300 + "a") != bounded_key("x" * 300 + "b")


def test_a_cursor_has_a_longest_length() -> None:
    with pytest.raises(ValidationError, match=f"at most {LONGEST_CURSOR} characters"):
        Numbered(name="a", cursor="x" * (LONGEST_CURSOR + 1))
    with pytest.raises(ToolError, match="narrow the search"):
        After.model_construct(query="q", id="x" * LONGEST_CURSOR).encode(CIPHER)


def _kinds_of_cursor() -> list[type[Cursor]]:
    every_tool()  # imports all families
    return [kind for kind in Cursor.__subclasses__() if kind.__module__.startswith("mcp_server.")]


@pytest.mark.parametrize("kind", _kinds_of_cursor(), ids=lambda kind: kind.__qualname__)
@pytest.mark.parametrize("character", ["x", '"', "\x01", "\U0001f600"])
def test_every_place_that_is_ours_fits_a_cursor(kind: type[Cursor], character: str) -> None:
    """But the API server's token, whose length is not ours: see `Page`."""
    longest: dict[str, Any] = {}
    for name, field in kind.model_json_schema()["properties"].items():
        if name == "token":
            continue
        if field["type"] == "string":
            length = field.get("maxLength", 20)
            longest[name] = "9" * length if "pattern" in field else character * length
        else:
            longest[name] = field.get("maximum", field.get("exclusiveMaximum", 1) - 1)
    place = kind.model_validate(longest)

    assert kind.decode(CIPHER, place.encode(CIPHER), place.query) == place
