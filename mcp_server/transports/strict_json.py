"""JSON that two parsers cannot read differently: what is judged must be what is executed.

RFC 8259 leaves duplicate names, lone surrogates and non-finite numbers to the implementation; RFC 7493
(I-JSON) forbids them, and so does this module.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

__all__ = ["StrictJsonError", "parse"]

_MAX_DEPTH = 64
_MAX_VALUES = 20_000
"""Every value costs time in each step after this one. The largest valid calls have some hundred."""


class StrictJsonError(ValueError):
    """The body is not JSON that is accepted here; the message says why."""


def parse(body: bytes) -> Any:
    """Return the parsed body.

    Raises:
        StrictJsonError: malformed JSON or UTF-8, a duplicate member name, a lone surrogate, NaN or an
            infinity, a number too large to hold, nesting deeper than 64, or more than 20,000 values.
    """
    try:
        document = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except StrictJsonError:
        raise
    except UnicodeDecodeError as error:
        raise StrictJsonError(f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise StrictJsonError(
            f"malformed JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except (RecursionError, ValueError):
        raise StrictJsonError("the JSON is nested too deeply or holds a number too large") from None
    # A lone surrogate can only come from an escape. The walk also bounds depth and number of values.
    _check(document, 0, _MAX_VALUES)
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value] # add returns None: the idiom
        raise StrictJsonError(f"the member {twice!r} stands twice in one object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise StrictJsonError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise StrictJsonError(f"the number {text[:32]} is too large")
    return value


def _check(node: Any, depth: int, left: int) -> int:
    """Check a value and all values in it.

    Args:
        left: how many values there may be.

    Returns:
        How many are left.
    """
    if depth > _MAX_DEPTH:
        raise StrictJsonError(f"the JSON is nested deeper than {_MAX_DEPTH}")
    left -= 1
    if left < 0:
        raise StrictJsonError(f"the JSON has more than {_MAX_VALUES} values")
    match node:
        case str():
            _check_text(node)
        case dict():
            for name, value in node.items():
                _check_text(name)
                left = _check(value, depth + 1, left)
        case list():
            for value in node:
                left = _check(value, depth + 1, left)
    return left


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise StrictJsonError("a string holds a lone surrogate") from None
