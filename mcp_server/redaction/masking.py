"""What the policy masks of a result (the obligation `redact`): fields and labels, by their names.

A value is masked wherever it stands under its name, and where texts beside it tell it: an alert's
summary often has its labels in it. What one of our tools makes of a value is that tool's to mask
(`ToolContext.masked_value`, and `revealed_by` of a tool or a document).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from functools import lru_cache
from typing import Any

from mcp_server.redaction import MASK, REDACTED

__all__ = ["MASK", "mask_fields", "mask_text"]

# Shorter ones are in every other word, longer ones are told nowhere else.
_SHORTEST_TOLD, _LONGEST_TOLD = 3, 256
_HOST_AND_PORT = re.compile(r"(.{3,}):[0-9]{1,5}")


def mask_fields(document: dict[str, Any], names: Set[str]) -> dict[str, Any]:
    """Return `document` without the values of the fields in `names`, at any depth.

    Texts of more than one word lose these values too, and any text `name="value"` and `name=value`. So a
    document should be of one thing: of a list, each row by itself.
    """
    if not names:
        return document
    hidden: list[str] = []
    shown: dict[str, Any] = _without_fields(document, frozenset(names), hidden)
    told = _any_of(hidden)
    if told is not None:
        shown = _without_words(shown, told)
    return shown


def mask_text(text: str, names: Set[str]) -> str:
    """Return a text in which values are masked that it tells under one of the names."""
    if not any(name in text for name in names):
        return text
    return _pairs(frozenset(names)).sub(_masked_pair, text)


def _without_fields(value: Any, names: frozenset[str], hidden: list[str]) -> Any:
    """Return a value without those under the names, which are put into `hidden`."""
    match value:
        case dict():
            shown = {}
            for key, item in value.items():
                if key in names:
                    hidden.extend(_texts(item))
                    shown[key] = MASK
                else:
                    shown[key] = _without_fields(item, names, hidden)
            return shown
        case list():
            return [_without_fields(item, names, hidden) for item in value]
        case str():
            return mask_text(value, names)
        case _:
            return value


def _without_words(value: Any, told: re.Pattern[str]) -> Any:
    match value:
        case dict():
            return {key: _without_words(item, told) for key, item in value.items()}
        case list():
            return [_without_words(item, told) for item in value]
        # What has no blank is a name, which must stay whole to be of use.
        case str() if " " in value and value != MASK:
            return told.sub(MASK, value)
        case _:
            return value


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)


def _any_of(hidden: Iterable[str]) -> re.Pattern[str] | None:
    """Return what finds the values as whole words, and the hosts of addresses; None: there are none."""
    words = {each for each in hidden if _SHORTEST_TOLD <= len(each) <= _LONGEST_TOLD}
    words.discard(REDACTED)
    words |= {found[1] for each in words if (found := _HOST_AND_PORT.fullmatch(each))}
    if not words:
        return None
    choices = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)")


@lru_cache(maxsize=64)
def _pairs(names: frozenset[str]) -> re.Pattern[str]:
    """Return what finds `name="value"`, as PromQL and JSON have it, and `name=value`."""
    named = "|".join(map(re.escape, sorted(names)))
    return re.compile(
        rf"(?P<kept>(?<![\w.-])(?:{named})(?:[\"']?\s{{0,4}}(?:=~|!=|!~|=|:)\s{{0,4}}(?=[\"'])|=(?!\[)))"
        r"(?:\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s\"',;&|)\]}]+)"
    )


def _masked_pair(match: re.Match[str]) -> str:
    return match["kept"] + MASK
