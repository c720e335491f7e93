"""Cursors continue where the page before ended; what was not made here is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.tools.cmdb.backend import InvalidCursor
from mcp_server.tools.cmdb.postgres import decode_cursor, encode_cursor

_ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(_ids)
def test_a_cursor_gives_back_the_id_it_was_made_from(last_id: str) -> None:
    assert decode_cursor(encode_cursor(last_id)) == last_id


@given(st.text() | st.text("abcdefgABCDEFG0123456789-_=", max_size=20))
def test_any_other_text_is_refused_or_means_exactly_one_id(text: str) -> None:
    with contextlib.suppress(InvalidCursor):
        assert encode_cursor(decode_cursor(text)) == text


@pytest.mark.parametrize("text", ["", "MTo", "MToA", "ä", "MTph=", "{}", "MjphYmM"])
def test_known_bad_cursors_are_refused(text: str) -> None:
    with pytest.raises(InvalidCursor, match="next_cursor"):
        decode_cursor(text)
