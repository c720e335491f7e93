"""Arguments of calls: what the audit log keeps of them, and what the policy gets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_server.redaction.names import holds_secret
from mcp_server.redaction.text import REDACTED, redact_text
from mcp_server.redaction.walker import Walker

__all__ = [
    "ARGUMENTS_LIMIT",
    "CUT_KEY",
    "NO_ARGUMENTS",
    "RedactedArguments",
    "redact_arguments",
    "without_secrets",
]

CUT_KEY = "[cut]"
"""The key that marks an object of which a part was not kept."""
ARGUMENTS_LIMIT = 16 * 1024
"""Bytes of JSON that are kept of the arguments of one call."""

_DEPTH_LIMIT = 32
_SEARCH_LIMIT = 64 * 1024
"""Characters of the arguments of one call that are searched for secrets; the rest is not kept."""
_LEAST_SEARCH = 16  # characters that a text counts for at least
_MOST_ITEMS = _SEARCH_LIMIT // _LEAST_SEARCH
_LONGEST_SECRET = 1024
_SLACK = 128
"""Bytes set aside for the mark of the cut and the one small value that may pass the limit."""
_CUT_NOTE = "too long or too deep; the rest was not kept"

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class RedactedArguments:
    """A JSON object that may be written down; only `redact_arguments` makes one from arguments.

    Attributes:
        json: the object, without what PostgreSQL's jsonb refuses (NUL characters, lone surrogates,
            NaN).
    """

    json: str


NO_ARGUMENTS = RedactedArguments("{}")


def redact_arguments(
    arguments: Mapping[str, Any], *, limit: int = ARGUMENTS_LIMIT
) -> RedactedArguments:
    """Return the arguments of a call without secrets, cut at `limit` bytes of JSON in UTF-8.

    A cut is marked: long text ends with an ellipsis, and the object has the key `[cut]`.

    Args:
        arguments: JSON-like values; anything else is written as the name of its type.
    """
    copy = _BoundedCopy(limit)
    kept = copy.object(arguments, 0)
    if copy.cut:
        kept[CUT_KEY] = _CUT_NOTE
    return RedactedArguments(_encode(kept))


def without_secrets(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the arguments of a call for the policy, and the places of those that are withheld.

    A text is passed on whole or not at all: if only a part were replaced, a caller who writes
    `password=` before a word would hide the word from the policy's rules. When there is more text than
    can be searched in little time, the longest texts are withheld, so that they hide no shorter one.

    Args:
        arguments: JSON-like values.

    Returns:
        A copy in which every value that is or may hold a secret is None, and the places of these as
        JSON Pointers (RFC 6901), such as `/panels/0/query`.
    """
    copy = _OpenCopy(_longest_searched(arguments))
    return copy.value(arguments) or {}, tuple(copy.withheld)


def _longest_searched(arguments: Mapping[str, Any]) -> int:
    """Return the length up to which all texts, keys too, can be searched together.

    Texts in lists that are withheld as a whole do not count.
    """
    lengths = _Lengths()
    lengths.value(arguments)
    left = _SEARCH_LIMIT
    for length in sorted(lengths.found):
        left -= max(length, _LEAST_SEARCH)
        if left < 0:
            return length - 1
    return _SEARCH_LIMIT


class _Lengths(Walker):
    """Collects the lengths of all texts."""

    depth_limit = _DEPTH_LIMIT + 1

    def __init__(self) -> None:
        self.found: list[int] = []

    def text(self, text: str) -> None:
        self.found.append(len(text))

    def object(self, value: Mapping[Any, Any], depth: int) -> None:
        for key, item in value.items():
            self.found.append(len(str(key)))
            self.value(item, depth + 1)

    def array(self, value: Sequence[Any], depth: int) -> None:
        if len(value) <= _MOST_ITEMS:
            for item in value:
                self.value(item, depth + 1)


class _OpenCopy(Walker):
    """Copies what the policy may see; everything else is None, and its place is noted.

    Args:
        longest: characters of the longest text that is searched.
    """

    depth_limit = _DEPTH_LIMIT + 1

    def __init__(self, longest: int) -> None:
        self.withheld: list[str] = []
        self._longest = longest
        self._place: list[str | int] = []

    def text(self, text: str) -> str | None:
        return text if self._is_open(text) else self._withhold()

    def scalar(self, value: float | None) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return self._withhold()
        return value

    def object(self, value: Mapping[Any, Any], depth: int) -> Any:
        if not all(isinstance(key, str) and self._is_open(key) for key in value):
            return self._withhold()
        copy = {}
        for key, item in value.items():
            self._place.append(key)
            copy[key] = (
                self._withhold() if holds_secret(value, key) else self.value(item, depth + 1)
            )
            self._place.pop()
        return copy

    def array(self, value: Sequence[Any], depth: int) -> Any:
        if len(value) > _MOST_ITEMS:
            return self._withhold()
        copy = []
        for number, item in enumerate(value):
            self._place.append(number)
            copy.append(self.value(item, depth + 1))
            self._place.pop()
        return copy

    def too_deep(self, _: Any) -> None:
        self._withhold()

    def other(self, _: Any) -> None:
        self._withhold()

    def _is_open(self, text: str) -> bool:
        return len(text) <= self._longest and redact_text(text) == text

    def _withhold(self) -> Any:
        """Record the JSON Pointer of the withheld value, and return None in its place."""
        self.withheld.append(
            "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in self._place)
        )
        return None


class _BoundedCopy(Walker):
    """Copies without secrets, and spends a budget of bytes of JSON on the way.

    Attributes:
        cut: whether anything is missing from the copy.
    """

    depth_limit = _DEPTH_LIMIT

    def __init__(self, limit: int) -> None:
        self.cut = False
        self._left = limit - _SLACK
        self._unsearched = _SEARCH_LIMIT
        self._exhausted = False

    def text(self, text: str) -> str:
        clean, whole = self._clean(text)
        if not whole:
            clean += "…"
        room = self._left
        if self._spend(_size(clean)):
            return clean
        # A character takes 1 to 6 bytes as JSON: cut generously, then exactly.
        clean = clean[: max(room, 0)]
        while clean and _size(clean) > room:
            clean = clean[: len(clean) * 9 // 10]
        self._left = 0
        return clean + "…"

    def scalar(self, value: float | None) -> Any:
        match value:
            case None | bool():
                self._spend(5)
            case float():
                self._spend(25)
                return value if math.isfinite(value) else str(value)
            case int() if value.bit_length() < 256:
                self._spend(len(str(value)))
            case _:
                return self.other(value)
        return value

    def object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        self._spend(2)
        kept: dict[str, Any] = {}
        for key, item in value.items():
            name, whole = self._clean(str(key))
            if self._exhausted or not whole or not self._spend(_size(name) + 2):
                self.cut = True
                break
            if holds_secret(value, key):
                self._spend(_size(REDACTED))
                kept[name] = REDACTED
            else:
                kept[name] = self.value(item, depth + 1)
        return kept

    def array(self, value: Sequence[Any], depth: int) -> list[Any]:
        self._spend(2)
        kept: list[Any] = []
        for item in value:
            if self._exhausted or not self._spend(1):
                self.cut = True
                break
            kept.append(self.value(item, depth + 1))
        return kept

    def too_deep(self, _: Any) -> str:
        self.cut = True
        return self.text("[too deep]")

    def other(self, value: Any) -> str:
        return self.text(f"[{type(value).__name__}]")

    def _spend(self, size: int) -> bool:
        """Take `size` bytes from the budget; when they are not there, nothing more is kept."""
        if size > self._left:
            self._exhausted = self.cut = True
            return False
        self._left -= size
        return True

    def _clean(self, text: str) -> tuple[str, bool]:
        """Return the part of a text that can be searched, without secrets, and whether it is all."""
        searched = text[: self._unsearched]
        whole = len(searched) == len(text)
        self._unsearched = max(0, self._unsearched - max(len(text), _LEAST_SEARCH))
        if whole:
            return redact_text(text), True
        self.cut = True
        # A secret that is cut may not look like one.
        return redact_text(searched)[:-_LONGEST_SECRET], False


def _size(text: str) -> int:
    """Return the bytes of a text as JSON, quotes included."""
    return len(_encode(text).encode())
