"""Fields that the policy masks (the obligation `redact`), by their names.

A value is masked under its name at any depth, and in texts beside it that repeat it: an alert's summary
often contains its labels. Values that a tool derives from a masked one are that tool's to mask
(`ToolContext.masked_value`, and `revealed_by` of a tool or a resource).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from typing import Any

from mcp_server.redaction.text import MASK, REDACTED
from mcp_server.redaction.walker import Walker

__all__ = ["MASK", "mask_fields", "mask_text"]

# Shorter values are part of every other word; longer ones are repeated nowhere.
_SHORTEST_REPEATED, _LONGEST_REPEATED = 3, 256
_HOST_AND_PORT = re.compile(r"(.{3,}):[0-9]{1,5}")


def mask_fields(document: dict[str, Any], names: Set[str]) -> dict[str, Any]:
    """Return `document` without the values of the fields in `names`, at any depth.

    Texts of more than one word lose these values too, and every text loses `name="value"` and
    `name=value`. So a document should be about one thing: pass each row of a list by itself.
    """
    if not names:
        return document
    fields = _Fields(frozenset(names))
    shown: dict[str, Any] = fields.value(document)
    repeated = _any_of(fields.hidden.found)
    if repeated is not None:
        shown = _Repetitions(repeated).value(shown)
    return shown


def mask_text(text: str, names: Set[str]) -> str:
    """Return `text` with the values masked that it holds under one of the names."""
    for name in names:
        if name in text:
            return _pairs(frozenset(names)).sub(_masked_pair, text)
    return text


class _Fields(Walker):
    """Masks the values under the names, and collects their texts in `hidden`."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self.hidden = _Texts()

    def text(self, text: str) -> str:
        return mask_text(text, self._names)

    def object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        shown = {}
        for key, item in value.items():
            if key in self._names:
                self.hidden.value(item)
                shown[key] = MASK
            else:
                shown[key] = self.value(item, depth + 1)
        return shown


class _Texts(Walker):
    """Collects all texts, without keys."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def text(self, text: str) -> None:
        self.found.append(text)


class _Repetitions(Walker):
    """Masks values that texts repeat. A text without a blank is a name, and must stay whole."""

    def __init__(self, repeated: re.Pattern[str]) -> None:
        self._repeated = repeated

    def text(self, text: str) -> str:
        return self._repeated.sub(MASK, text) if " " in text and text != MASK else text


def _any_of(hidden: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern for the values as whole words, and the hosts of addresses; None: no value."""
    words = {each for each in hidden if _SHORTEST_REPEATED <= len(each) <= _LONGEST_REPEATED}
    words.discard(REDACTED)
    words |= {found[1] for each in words if (found := _HOST_AND_PORT.fullmatch(each))}
    if not words:
        return None
    choices = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)")


@lru_cache(maxsize=64)
def _pairs(names: frozenset[str]) -> re.Pattern[str]:
    """Return a pattern for `name="value"`, as PromQL and JSON write it, and `name=value`."""
    named = "|".join(map(re.escape, sorted(names)))
    return re.compile(
        rf"(?P<kept>(?<![\w.-])(?:{named})(?:[\"']?\s{{0,4}}(?:=~|!=|!~|=|:)\s{{0,4}}(?=[\"'])|=(?!\[)))"
        r"(?:\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s\"',;&|)\]}]+)"
    )


def _masked_pair(match: re.Match[str]) -> str:
    return match["kept"] + MASK
