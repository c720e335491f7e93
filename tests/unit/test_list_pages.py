"""Pages of lists."""

from __future__ import annotations

import base64

import pytest

from mcp_server.transports.list_pages import InvalidCursor, page

NAMES = [f"n{number:03}" for number in range(250)]


def _all(names: list[str]) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        names_of_page, cursor = page("tools/list", names, str, cursor)
        found += names_of_page
        if cursor is None:
            return found


def test_following_the_cursors_gives_everything_once() -> None:
    assert _all(NAMES) == NAMES


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (100, 1), (101, 2), (200, 2)])
def test_a_cursor_is_given_only_when_more_follows(count: int, pages: int) -> None:
    first, cursor = page("tools/list", NAMES[:count], str, None)

    assert len(first) == min(count, 100)
    assert (cursor is None) == (pages == 1)


def test_a_page_continues_when_its_last_item_is_gone() -> None:
    _, cursor = page("tools/list", NAMES, str, None)

    following, _ = page("tools/list", [name for name in NAMES if name != "n099"], str, cursor)

    assert following[0] == "n100"


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "é", "a b", "AAAA", base64.urlsafe_b64encode(b'["tools/list",1]').decode()],
)
def test_a_cursor_that_was_not_given_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor, match="not a cursor of tools/list"):
        page("tools/list", NAMES, str, cursor)


def test_a_cursor_of_another_list_is_refused() -> None:
    _, cursor = page("prompts/list", NAMES, str, None)

    with pytest.raises(InvalidCursor):
        page("tools/list", NAMES, str, cursor)
