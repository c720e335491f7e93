"""Take secrets out of what is written down or handed on, and bound its size.

Two nets: values whose key names a secret (`api_key`, `dbPassword`, `X-Auth-Token`), and text that
has the shape of one (JWT, PEM private key, bearer token, `password=…`). When in doubt it redacts:
an audit row without a harmless value is better than one with a password.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_server.redaction.patterns import BEGUN_KEY_BACKWARDS, SHAPES

__all__ = [
    "ARGUMENTS_LIMIT",
    "CUT_KEY",
    "MASK",
    "NO_ARGUMENTS",
    "REDACTED",
    "LineRedactor",
    "RedactedArguments",
    "is_secret_key",
    "redact_arguments",
    "redact_labels",
    "redact_shapes",
    "redact_text",
    "without_secrets",
]

REDACTED = "[redacted]"
MASK = "[masked by policy]"
"""Stands in the place of a value that the policy masks (`mcp_server.redaction.masking`)."""
CUT_KEY = "[cut]"
ARGUMENTS_LIMIT = 16 * 1024
"""Bytes of JSON kept of one call's arguments."""

_DEPTH_LIMIT = 32
_SEARCH_LIMIT = 64 * 1024
"""Characters of one call's arguments that are searched for secrets each time; the rest is not shown."""
_LEAST_SEARCH = 16  # characters that a text counts for at least
_MOST_ITEMS = _SEARCH_LIMIT // _LEAST_SEARCH
_LONGEST_SECRET = 1024
_LONGEST_KEY = 1024
_SLACK = 128
"""Bytes set aside for the mark of the cut and the one small value that may pass the limit."""
_CUT_NOTE = "too long or too deep; the rest was not kept"

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
# A key is secret when its letters and digits contain one of these ...
_SECRET_PARTS = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "authorization",
    "credential",
    "cookie",
    "bearer",
    "kubeconfig",
)
# ... or are one of these, which as parts of words would hit too much.
_SECRET_WORDS = frozenset({"auth", "jwt", "otp", "pass", "pin", "pwd", "apitoken", "sig"})

# A label that ends in one of these tells about a secret, and is none.
_ABOUT_A_SECRET = (
    *("name", "namespace", "type", "kind", "class", "version", "status", "reason", "issuer"),
    *("provider", "store", "file", "path", "ttl", "expiry", "count", "total"),
)
# What Kubernetes takes for the name of an object, and for a key within a Secret.
_OBJECT_NAME = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_DATA_KEY = re.compile(r"[\w.-]{1,253}", re.ASCII)
# Such names have words in them, credentials such runs of letters and digits.
_RANDOM_RUN = re.compile(r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20}", re.ASCII)

_KEY_VALUE_NAMES = ("name", "key")
_LABEL_SETS = frozenset({"annotations", "labels"})

# Tags of images, and how an image's name begins before one whose last word is that of a secret. The
# less a tag looks like a version, the more its name must look like that of an image: `grep` prints what
# is in a file as `secrets/db-password:1234`.
_DOTTED = r"v[0-9]{1,4}|v?[0-9]{1,4}(?:\.[0-9]{1,8}){1,4}"
_WORD = r"[0-9]{1,3}|latest|stable|edge|nightly|main|master"
_BUILD = r"[0-9]{1,8}|(?:[a-z]{1,12}-)?(?:[0-9a-f]{7,12}|[0-9a-f]{40})"
_TAG = re.compile(
    rf"(?:(?:(?P<dotted>{_DOTTED})|(?P<word>{_WORD}))(?:[._+-][a-z0-9][a-z0-9._+-]{{0,24}})?|{_BUILD})"
    r"(?:@sha256:[0-9a-f]{64})?[])>:.]{0,3}",
    re.ASCII,
)
# What stands before a tag without a break, read backwards, and how it looks that it is an image's name.
_BACKWARDS = re.compile(r"[\w./:@~%+-]*", re.ASCII)
_REPOSITORY = re.compile(
    r"(?P<host>(?:[a-z0-9-]+\.[a-z0-9.-]+(?::[0-9]{1,5})?|[a-z0-9-]+:[0-9]{1,5})/)?"
    r"(?P<path>(?:[a-z0-9][a-z0-9._-]*/)*)(?P<compound>[a-z0-9][a-z0-9._-]*[._-])?",
    re.ASCII,
)
_LONGEST_REPOSITORY = 255
_LONGEST_BEGUN_KEY = 16
_MASKED = (REDACTED, MASK)
_ASSIGNMENT = re.compile("[:=,]")
# What is said of a file or a field whose name is that of a secret: `…/token: permission denied`.
_SAID_OF_IT = re.compile(
    r"(?:no such (?:file|host|key)|permission denied|operation not permitted|not found|not a directory|"
    r"is a directory|(?:is|was|are) (?:required|missing|invalid|expired|empty)|has expired|"
    r"required value|must (?:be|not)|cannot be|does not|too (?:short|long|many))\b",
    re.IGNORECASE,
)

# A private key whose lines are seen one after the other. They end with base64, and the longest keys
# have some hundred. Digests, which end lines too, are hexadecimal.
_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_KEY_PART = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{1,76}={0,2}[\"',]{0,2}\s{0,4}$", re.ASCII)
_WHOLE_KEY_PART = re.compile(
    r"(?<![A-Za-z0-9+/=])(?=[A-Za-z0-9+/]{0,76}[G-Zg-z+/])[A-Za-z0-9+/]{40,76}={0,2}[\"',]{0,2}\s{0,4}$",
    re.ASCII,
)
_KEY_LINES = 128

# Colours and other control sequences of terminals (ECMA-48, 5.4), with ESC as JSON, shells and syslog
# write it, too.
_TERMINAL = re.compile(
    r"(?:(?:\x1b|\ufffd|\u241b|\\{1,31}(?:u001b|x1b|033|e)|#033|\^\[)\[|\x9b)[0-9;:?]{0,32}[ ]?[A-Za-z]",
    re.IGNORECASE,
)
_LONGEST_NO_SECRET = 32
# What stands under the name of a secret and is none.
_NO_SECRET = re.compile(
    r"(?:[|>][+-]?|[\[({][\])}]|\\*([\"'`])\\*\1"
    r"|(?:\\*[\"'])?(?:true|false|null|none|nil|undefined|<nil>|\*{3,})(?:\\*[\"'])?[\])]{0,4})",
    re.IGNORECASE,
)
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class RedactedArguments:
    """A JSON object that may be written down; only `redact_arguments` makes them from a call's.

    Attributes:
        json: the object, without what PostgreSQL's jsonb refuses (NUL characters, lone surrogates,
            NaN).
    """

    json: str


NO_ARGUMENTS = RedactedArguments("{}")


def redact_arguments(
    arguments: Mapping[str, Any], *, limit: int = ARGUMENTS_LIMIT
) -> RedactedArguments:
    """Return a call's arguments without secrets, cut at `limit` bytes of JSON in UTF-8.

    What was cut is marked: long text ends with an ellipsis, and the object has the key `[cut]`.

    Args:
        arguments: JSON-like values; anything else is written as its type's name.
    """
    walk = _Walk(limit)
    kept = walk.object(arguments)
    if walk.cut:
        kept[CUT_KEY] = _CUT_NOTE
    return RedactedArguments(_encode(kept))


def without_secrets(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a call's arguments for those who judge them, and where something was taken out.

    A text stands there as it runs, or not at all: with a part replaced, whoever writes
    `password=` before a word would hide the word, and a rule about it would hold. Of more text than
    can be searched in little time, the longest is taken out unseen: so it hides none that is shorter.

    Args:
        arguments: JSON-like values.

    Returns:
        A copy in which every value that is or may hold a secret is None, and the places of these as
        JSON Pointers (RFC 6901), such as `/panels/0/query`.
    """
    longest = _longest_searched(arguments)
    taken: list[str] = []

    def open_text(text: str) -> bool:
        return len(text) <= longest and redact_text(text) == text

    def copy(value: Any, at: str, depth: int) -> Any:
        if depth <= _DEPTH_LIMIT:
            match value:
                case None | bool() | int():
                    return value
                case float() if math.isfinite(value):
                    return value
                case str() if open_text(value):
                    return value
                case Mapping() if all(isinstance(key, str) and open_text(key) for key in value):
                    return _open_items(value, at, depth)
                case list() | tuple() if len(value) <= _MOST_ITEMS:
                    return [copy(each, f"{at}/{n}", depth + 1) for n, each in enumerate(value)]
        taken.append(at)
        return None

    def _open_items(value: Mapping[str, Any], at: str, depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, item in value.items():
            place = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
            if _holds_secret(value, name):
                taken.append(place)
                kept[name] = None
            else:
                kept[name] = copy(item, place, depth + 1)
        return kept

    return copy(arguments, "", 0) or {}, tuple(taken)


def _longest_searched(arguments: Mapping[str, Any]) -> int:
    """Return the length up to which all texts, keys too, can be searched together.

    What stands in lists that are too long to be judged does not count.
    """
    left = _SEARCH_LIMIT
    for length in sorted(map(len, _texts(arguments))):
        left -= max(length, _LEAST_SEARCH)
        if left < 0:
            return length - 1
    return _SEARCH_LIMIT


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping() if depth <= _DEPTH_LIMIT:
            for key, item in value.items():
                yield str(key)
                yield from _texts(item, depth + 1)
        case list() | tuple() if depth <= _DEPTH_LIMIT and len(value) <= _MOST_ITEMS:
            for item in value:
                yield from _texts(item, depth + 1)


def redact_text(text: str) -> str:
    """Return `text` with everything that looks like a secret replaced by `[redacted]`.

    A text with a secret loses its colour codes as well.

    Characters that PostgreSQL or UTF-8 cannot hold become U+FFFD.
    """
    if "\0" in text or not text.isascii():
        text = _UNSTORABLE.sub("\ufffd", text)
    # Colours may stand between a key and its value, and within both.
    if "[" in text or "\x9b" in text:
        plain = _TERMINAL.sub("", text)
        if plain != text and (clean := _without_shapes(plain)) != plain:
            return clean
    return _without_shapes(text)


def _without_shapes(text: str) -> str:
    folded = text.casefold()
    for marks, searches in _SEARCHES.items():
        if any(mark in folded for mark in marks):
            for pattern, replacement in searches:
                text = pattern.sub(replacement, text)
    return text


class LineRedactor:
    """`redact_text` for the lines of a stream, in which a private key takes several lines.

    The stream may begin within a key, as the end of a log may: lines at its beginning that may be a
    part of one are held back until it is known what they are.
    """

    def __init__(self) -> None:
        self._held: list[str] | None = []
        self._left_of_key = 0

    def feed(self, line: str) -> Iterator[str]:
        """Yield the lines that may be seen now that `line` is known; a key's line becomes a mask."""
        if self._left_of_key:
            self._left_of_key = 0 if _KEY_END.search(line) else self._left_of_key - 1
            yield REDACTED
            return
        begins = _KEY_BEGIN.search(line)
        ends = _KEY_END.search(line, begins.end() if begins else 0)
        if self._held is not None:
            if ends and not begins:
                yield from [REDACTED] * (len(self._held) + 1)
                self._held = None
                return
            if len(self._held) < _KEY_LINES and _KEY_PART.search(line):
                self._held.append(line)
                return
            yield from map(redact_text, self._held)
            self._held = None
        if begins and not ends:
            self._left_of_key = _KEY_LINES
        yield redact_text(line)

    def rest(self) -> Iterator[str]:
        """Yield what is still held back at the end of the stream."""
        for line in self._held or ():
            yield REDACTED if _WHOLE_KEY_PART.search(line) else redact_text(line)
        self._held = None


def redact_shapes(value: Any) -> Any:
    """Return a copy of a JSON-like value in which text and keys lose what has the shape of a secret.

    For results: values whose key only sounds secret stay (a metric named `token_reviews_total` has an
    honest value), but for labels and annotations, whose keys people choose: there they are replaced.
    Keys that become alike are numbered, so that none takes the place of another.
    """
    match value:
        case str():
            return redact_text(value)
        case dict():
            kept: dict[str, Any] = {}
            for key, item in value.items():
                shown = _free_name(redact_text(str(key)), kept)
                kept[shown] = redact_shapes(_without_secret_labels(key, item))
            return kept
        case list():
            return [redact_shapes(item) for item in value]
        case _:
            return value


def _without_secret_labels(name: str, value: Any) -> Any:
    """Return `value`; where it is a set of labels, what stands under a secret's name is replaced."""
    if name not in _LABEL_SETS or not isinstance(value, dict):
        return value
    return redact_labels(value)


def redact_labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels without the values of those that are secrets by their names.

    What only tells about a secret stays: `secret_name`, `token_type`. So does what Kubernetes calls
    a Secret in series about it: `secret` beside `namespace`, and `secret_key` beside `secret_name`.
    """
    return {
        key: REDACTED if isinstance(text, str) and _is_secret_label(key, text, labels) else text
        for key, text in labels.items()
    }


def _is_secret_label(key: str, value: str, labels: Mapping[str, Any]) -> bool:
    if not is_secret_key(key) or _NOT_ALPHANUMERIC.sub("", key).casefold().endswith(
        _ABOUT_A_SECRET
    ):
        return False
    names_an_object = (
        key == "secret" and "namespace" in labels and _OBJECT_NAME.fullmatch(value)
    ) or (key == "secret_key" and "secret_name" in labels and _DATA_KEY.fullmatch(value))
    return not names_an_object or _RANDOM_RUN.search(value) is not None


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return `name`, numbered from 2 on where it is taken."""
    if name not in taken:
        return name
    number = 2
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def is_secret_key(key: str) -> bool:
    """Whether a key names a secret, whatever its case and separators (`API-Key`, `dbPassword`).

    One that is too long for a name is taken for one that does, and not looked at.
    """
    if len(key) > _LONGEST_KEY:
        return True
    letters = _NOT_ALPHANUMERIC.sub("", key).casefold()
    return letters in _SECRET_WORDS or any(part in letters for part in _SECRET_PARTS)


def _holds_secret(mapping: Mapping[Any, Any], key: Any) -> bool:
    """Whether the value of `key` is a secret: by this name, or by the one that stands beside it."""
    name = str(key)
    return is_secret_key(name) or (
        name.casefold() == "value"
        and any(
            isinstance(mapping.get(beside), str) and is_secret_key(mapping[beside])
            for beside in _KEY_VALUE_NAMES
        )
    )


def _unless_harmless(match: re.Match[str]) -> str:
    return match[0] if _names_no_secret(match) else match["kept"] + REDACTED


def _replacement(pattern: re.Pattern[str]) -> str | Callable[[re.Match[str]], str]:
    """Return what `re.sub` puts in the place of a match."""
    if "value" in pattern.groupindex:
        return _unless_harmless
    return rf"\g<kept>{REDACTED}" if "kept" in pattern.groupindex else REDACTED


_SEARCHES = {
    marks: [
        (shape.pattern, _replacement(shape.pattern)) for shape in SHAPES if shape.marks == marks
    ]
    for marks in dict.fromkeys(shape.marks for shape in SHAPES)
}


def _names_no_secret(match: re.Match[str]) -> bool:
    """Tell whether `token: …` is masked, ends the name of an image with its tag, or is an error."""
    kept = match["kept"]
    start, end = match.span("value")
    if match.string.startswith(_MASKED, start):
        return True
    if end - start <= _LONGEST_NO_SECRET and _NO_SECRET.fullmatch(match.string, start, end):
        return True
    if kept[-1] in " \t":
        # `token: is expired`, and without a separator `password 'must not be blank'`
        said = start + (_ASSIGNMENT.search(kept) is None)
        return "=" not in kept and _SAID_OF_IT.match(match.string, said) is not None
    return _tags_an_image(match)


def _tags_an_image(match: re.Match[str]) -> bool:
    kept = match["kept"]
    # Names of images are in lower case.
    if kept[-1] != ":" or kept[-2] in "\"'" or not kept.islower():
        return False
    tag = _TAG.fullmatch(match["value"])
    if tag is None:
        return False
    before = _word_before(match)
    name = _REPOSITORY.fullmatch(before)
    if name is None or len(before) > _LONGEST_REPOSITORY:
        return False
    if name["host"]:
        return True
    if name["path"]:
        return tag["dotted"] is not None or (tag["word"] is not None and bool(name["compound"]))
    # auth-token:1.4.2
    return bool(name["compound"]) and tag["dotted"] is not None and tag["dotted"].count(".") > 1


def _word_before(match: re.Match[str]) -> str:
    """Return what stands before a key without a break, as far as to see that it is no name."""
    start = match.start()
    longest = _LONGEST_REPOSITORY + 1 + _LONGEST_BEGUN_KEY
    reading = match.string[max(0, start - longest) : start][::-1]
    begun = BEGUN_KEY_BACKWARDS.match(reading)
    backwards = _BACKWARDS.match(reading, begun.end() if begun else 0)
    return backwards[0][::-1] if backwards else ""


def _size(text: str) -> int:
    """Return the bytes of a text as JSON, quotes included."""
    return len(_encode(text).encode())


class _Walk:
    """One pass over a value: redacts, and spends a budget of bytes of JSON as it goes."""

    def __init__(self, limit: int) -> None:
        self._left = limit - _SLACK
        self._unsearched = _SEARCH_LIMIT
        self._exhausted = False
        self.cut = False
        """Whether anything is missing from the copy."""

    def _spend(self, size: int) -> bool:
        """Take `size` bytes from the budget; when they are not there, nothing more is kept."""
        if size > self._left:
            self._exhausted = self.cut = True
            return False
        self._left -= size
        return True

    def value(self, value: Any, depth: int = 0) -> Any:  # noqa: PLR0911 (a case for each type)
        """Return a copy without secrets, as far as the budget goes."""
        match value:
            case None | bool():
                self._spend(5)
                return value
            case str():
                return self._text(value)
            case int() if value.bit_length() < 256:
                self._spend(len(str(value)))
                return value
            case float():
                self._spend(25)
                return value if math.isfinite(value) else str(value)
            case Mapping() | list() | tuple() if depth >= _DEPTH_LIMIT:
                self.cut = True
                return self._text("[too deep]")
            case Mapping():
                return self.object(value, depth)
            case list() | tuple():
                return self._array(value, depth)
            case _:
                return self._text(f"[{type(value).__name__}]")

    def _clean(self, text: str) -> tuple[str, bool]:
        """Return what of a text can be searched, without secrets, and whether that is all of it."""
        searched = text[: self._unsearched]
        whole = len(searched) == len(text)
        self._unsearched = max(0, self._unsearched - max(len(text), _LEAST_SEARCH))
        if whole:
            return redact_text(text), True
        self.cut = True
        # A secret that is cut may not look like one.
        return redact_text(searched)[:-_LONGEST_SECRET], False

    def _text(self, text: str) -> str:
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

    def object(self, value: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
        """Return a copy of a mapping, values under secret names replaced."""
        self._spend(2)
        kept: dict[str, Any] = {}
        for key, item in value.items():
            name, whole = self._clean(str(key))
            if self._exhausted or not whole or not self._spend(_size(name) + 2):
                self.cut = True
                break
            if _holds_secret(value, key):
                self._spend(_size(REDACTED))
                kept[name] = REDACTED
            else:
                kept[name] = self.value(item, depth + 1)
        return kept

    def _array(self, value: Sequence[Any], depth: int) -> list[Any]:
        self._spend(2)
        kept: list[Any] = []
        for item in value:
            if self._exhausted or not self._spend(1):
                self.cut = True
                break
            kept.append(self.value(item, depth + 1))
        return kept
