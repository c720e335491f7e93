"""Cursors continue where the page before ended; what was not made here is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.tools.cmdb.cursor import InvalidCursor, decode_cursor, encode_cursor

_ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(_ids)
def test_a_cursor_gives_back_the_id_it_was_made_from(last_id: str) -> None:
    assert decode_cursor("asset", encode_cursor("asset", last_id)) == last_id


@given(st.text() | st.text("abcdefgABCDEFG0123456789-_=", max_size=20))
def test_any_other_text_is_refused_or_means_exactly_one_id(text: str) -> None:
    with contextlib.suppress(InvalidCursor):
        assert encode_cursor("asset", decode_cursor("asset", text)) == text


@pytest.mark.parametrize("text", ["", "MTo", "MToA", "ä", "MTph=", "{}", "MjphYmM"])
def test_known_bad_cursors_are_refused(text: str) -> None:
    with pytest.raises(InvalidCursor, match="next_cursor"):
        decode_cursor("asset", text)


def test_a_cursor_of_another_kind_of_list_is_refused() -> None:
    with pytest.raises(InvalidCursor, match="next_cursor"):
        decode_cursor("change", encode_cursor("asset", "1"))
