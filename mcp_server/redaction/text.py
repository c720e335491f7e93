"""Secrets in text: what looks like a password, a token or a private key is replaced by a mark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mcp_server.redaction.patterns import MARK, PATTERNS

__all__ = ["MASK", "REDACTED", "LineRedactor", "redact_text"]

REDACTED = "[redacted]"
"""Replaces a secret."""
MASK = "[masked by policy]"
"""Replaces a value that the policy masks (`mcp_server.redaction.masking`)."""

_MASKED = (REDACTED, MASK)
_SHORT = 256
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_ASSIGNMENT = re.compile("[:=,]")
# Errors about a file or a field whose name is that of a secret, as Go and the Kubernetes API write them:
# `open /var/run/secrets/kubernetes.io/serviceaccount/token: no such file or directory`,
# `secretKeyRef: secret: Required value`.
_ERROR_PHRASE = re.compile(
    r"(?:no such (?:file|host|key)|permission denied|operation not permitted|not found|not a directory|"
    r"is a directory|(?:is|was|are) (?:required|missing|invalid|expired|empty)|has expired|"
    r"required value|must (?:be|not)|cannot be|does not|too (?:short|long|many))\b",
    re.IGNORECASE,
)

# A private key whose lines are seen one after the other. They end with base64, and the longest keys
# have some hundred. Digests, which end lines too, are hexadecimal.
_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
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
# Values under the name of a secret that are no secret.
_NO_SECRET = re.compile(
    r"(?:[|>][+-]?|[\[({][\])}]|\\*([\"'`])\\*\1"
    r"|(?:\\*[\"'])?(?:true|false|null|none|nil|undefined|<nil>|\*{3,})(?:\\*[\"'])?[\])]{0,4})",
    re.IGNORECASE,
)


def redact_text(text: str) -> str:
    """Return `text` with everything that looks like a secret replaced by `[redacted]`.

    A text with a secret loses its colour codes as well. Characters that PostgreSQL or UTF-8 cannot hold
    become U+FFFD.
    """
    if "\0" in text or not text.isascii():
        text = _UNSTORABLE.sub("\ufffd", text)
    # Colours may stand between a key and its value, and within both.
    if "[" in text or "\x9b" in text:
        without_colours = _TERMINAL.sub("", text)
        if (
            without_colours != text
            and (clean := _without_secrets(without_colours)) != without_colours
        ):
            return clean
    return _without_secrets(text)


def _without_secrets(text: str) -> str:
    folded = text.casefold()
    # Most texts are short and have no mark of any pattern: they cost one search. In a long text one
    # search for each mark is faster than one for all of them.
    if len(folded) <= _SHORT and MARK.search(folded) is None:
        return text
    for marks, searches in _SEARCHES.items():
        if any(mark in folded for mark in marks):
            for pattern, replacement in searches:
                text = pattern.sub(replacement, text)
    return text


def _unless_harmless(match: re.Match[str]) -> str:
    return match[0] if _is_harmless(match) else match["kept"] + REDACTED


def _is_harmless(match: re.Match[str]) -> bool:
    """Tell whether the value of `token: …` is no secret: a mask, a constant, or an error."""
    kept = match["kept"]
    start, end = match.span("value")
    if match.string.startswith(_MASKED, start):
        return True
    if end - start <= _LONGEST_NO_SECRET and _NO_SECRET.fullmatch(match.string, start, end):
        return True
    if kept[-1] not in " \t" or "=" in kept:
        return False
    # `token: is expired`, and without a separator `password 'must not be blank'`
    phrase = start + (_ASSIGNMENT.search(kept) is None)
    return _ERROR_PHRASE.match(match.string, phrase) is not None


def _replacement(pattern: re.Pattern[str]) -> str | Callable[[re.Match[str]], str]:
    """Return what `re.sub` puts in the place of a match."""
    if "value" in pattern.groupindex:
        return _unless_harmless
    return rf"\g<kept>{REDACTED}" if "kept" in pattern.groupindex else REDACTED


_SEARCHES = {
    marks: [
        (pattern.regex, _replacement(pattern.regex))
        for pattern in PATTERNS
        if pattern.marks == marks
    ]
    for marks in dict.fromkeys(pattern.marks for pattern in PATTERNS)
}


class LineRedactor:
    """`redact_text` for the lines of a stream, in which a private key takes several lines.

    The stream may begin within a key, as the end of a log may: the first lines that may be part of a key
    are held back until a later line decides.
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
