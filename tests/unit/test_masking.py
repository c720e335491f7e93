"""What the policy masks of a document, and of the texts beside it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.redaction import MASK, REDACTED, mask_fields, mask_text, redact_text

_names = st.sampled_from(["owner", "id", "labels", "note"])
_values = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=10,
)


@given(document=st.dictionaries(_names, _values, max_size=4), names=st.sets(_names))
def test_no_field_of_a_name_keeps_its_value_and_all_are_still_there(
    document: dict[str, Any], names: set[str]
) -> None:
    def check(shown: Any, whole: Any) -> None:
        if isinstance(whole, dict):
            assert shown.keys() == whole.keys()
            for key in whole:
                if key in names:
                    assert shown[key] == MASK
                else:
                    check(shown[key], whole[key])
        elif isinstance(whole, list):
            assert len(shown) == len(whole)
            for shown_item, whole_item in zip(shown, whole, strict=True):
                check(shown_item, whole_item)

    shown = mask_fields(document, names)

    check(shown, document)
    assert mask_fields(shown, names) == shown
    assert names or shown == document


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Instance till-1.example.com:9100 is down", f"Instance {MASK} is down"),
        ("till-1.example.com is down", f"{MASK} is down"),
        ("shop till-1.example.com, till-1.example.com!", f"shop {MASK}, {MASK}!"),
        # Another thing, and words that only hold a value.
        ("till-1.example.community is down", "till-1.example.community is down"),
        ("atill-1.example.com is down", "atill-1.example.com is down"),
        # A name is of use only whole.
        ("till-1.example.com-web", "till-1.example.com-web"),
        ("down", "down"),
    ],
)
def test_texts_beside_a_masked_value_do_not_tell_it(text: str, shown: str) -> None:
    labels = {"instance": "till-1.example.com:9100", "rack": "r1"}

    given = mask_fields({"labels": labels, "summary": text, "count": 1}, {"instance"})

    assert given["summary"] == shown
    assert given["labels"] == {"instance": MASK, "rack": "r1"}


@pytest.mark.parametrize("value", ["a", "ab", 1, 1234, True, None, "x" * 1000, "", REDACTED])
def test_what_is_no_word_of_its_own_is_not_looked_for(value: Any) -> None:
    text = f"a ab 1 1234 True None {'x' * 1000} {REDACTED} of"

    assert mask_fields({"id": value, "note": text}, {"id"}) == {"id": MASK, "note": text}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('up{instance="a:1",job="x"}', f'up{{instance={MASK},job="x"}}'),
        ('up{instance=~"a:.*", instance!="b"}', f"up{{instance=~{MASK}, instance!={MASK}}}"),
        ("owner='bob', rest", f"owner={MASK}, rest"),
        ('{"owner": "bob", "id": 1}', f'{{"owner": {MASK}, "id": 1}}'),
        ('owner="bo\\"b" x', f"owner={MASK} x"),
        ("owner=bob, rest", f"owner={MASK}, rest"),
        ("(owner=bob)", f"(owner={MASK})"),
        # Another name, words about it, and what is masked already.
        ("coowner=bob my.owner=bob", "coowner=bob my.owner=bob"),
        ("the owner: bob", "the owner: bob"),
        ("owner=[redacted]", "owner=[redacted]"),
        (f"owner={MASK}", f"owner={MASK}"),
    ],
)
def test_a_text_does_not_tell_a_value_under_its_name(text: str, shown: str) -> None:
    assert mask_text(text, {"owner", "instance"}) == shown
    assert mask_fields({"note": text}, {"owner", "instance"}) == {"note": shown}
    assert mask_text(text, set()) == text


def test_a_mask_is_no_secret_of_its_own() -> None:
    text = f"password={MASK}, token: {MASK} client_secret={REDACTED}; password: {REDACTED}"

    assert redact_text(text) == text
    assert redact_text(f"password={MASK[:-1]}") != f"password={MASK[:-1]}"


@pytest.mark.parametrize(
    "hostile",
    ['owner="' * 40_000, "owner=" * 40_000, "owner" + " " * 300_000, 'owner="\\' * 40_000],
)
def test_hostile_text_costs_little_time(hostile: str) -> None:
    # Of the processor: what else runs on the machine does not count.
    started = time.process_time()

    mask_fields({"id": "aaa", "note": hostile}, {"owner", "id"})

    assert time.process_time() - started < 1
