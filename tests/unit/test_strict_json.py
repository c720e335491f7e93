"""JSON that cannot be read in two ways."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.transports.strict_json import StrictJsonError, parse

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children)
    ),
    max_leaves=20,
)


@given(_values)
def test_what_a_writer_writes_is_read_back(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    try:
        document = parse(body)
    except StrictJsonError:
        return
    assert json.loads(body) == document


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a": 1, "a": 1}', "'a' stands twice"),
        (b'[{"x": {"b": 1, "c": 2, "b": 3}}]', "'b' stands twice"),
        (b'"\\udc00"', "lone surrogate"),
        (b'{"\\ud800": 1}', "lone surrogate"),
        (b"NaN", "NaN"),
        (b"-Infinity", "-Infinity"),
        (b"1e400", "too large"),
        (b"9" * 5000, "too large"),
        (b"[" * 70 + b"]" * 70, "nested deeper than 64"),
        (b"[" * 100000, "nested too deeply"),
        (b"[" + b"[]," * 20000 + b"[]]", "more than 20000 values"),
        (b'{"a": [' + b"0," * 20000 + b"0]}", "more than 20000 values"),
        (b"\xff", "not UTF-8 .byte 0."),
        (b"", "malformed JSON"),
        (b'{"a": 1} x', "malformed JSON: Extra data .line 1, column 10."),
    ],
)
def test_what_is_ambiguous_is_refused_by_name(body: bytes, said: str) -> None:
    with pytest.raises(StrictJsonError, match=said):
        parse(body)
