"""Label matchers in the syntax of Prometheus and Alertmanager.

The syntax is that of Alertmanager with UTF-8 label names
(https://prometheus.io/docs/alerting/latest/configuration/#matcher), with the three kinds of quotes of
Prometheus (https://prometheus.io/docs/prometheus/latest/querying/basics/#string-literals).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mcp_server.tools.text import truncate_middle
from mcp_server.tools.validation import InvalidArguments

__all__ = ["LONGEST_MATCHER", "MOST_MATCHERS", "matchers_of"]

MOST_MATCHERS = 20
LONGEST_MATCHER = 1024
_MOST_SHOWN = 200

_BLANKS = re.compile(r"\s*")
_OPEN, _CLOSE, _COMMA, _END = map(re.compile, (r"\{", r"\}", ",", r"\Z"))
_OPERATOR = re.compile(r"=~|!~|!=|=")
# A quoted string, or a word without characters of the syntax.
_WORD = re.compile(r"""(["'])(?:(?!\1)[^\\\n]|\\.)*\1|`[^`]*`|[^\s{}!=~,\\"'`]+""")
_QUOTES = ("'", '"', "`")
# Escapes of Go: \x and octal numbers are bytes of UTF-8, \u and \U are code points.
_ESCAPE = re.compile(rb"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[0-7]{3}|.)")
_LETTERS = dict(zip(b"abfnrtv\\", b"\a\b\f\n\r\t\v\\", strict=True))
# PromQL accepts other label names only in quotes.
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def matchers_of(asked: Sequence[str]) -> list[str]:
    """Return matchers in the form that both systems read: `label op "value"`.

    Args:
        asked: texts with one matcher each, such as `job=~"api.*"`, or with several, such as
            `{job="api", "service.name"!="web"}`.

    Raises:
        InvalidArguments: a text is not valid, or there are more than 20 matchers.
    """
    found = [matcher for text in asked for matcher in _Reader(text).matchers()]
    if len(found) > MOST_MATCHERS:
        raise InvalidArguments(f"matchers: {len(found)} matchers; at most {MOST_MATCHERS}")
    return found


class _Reader:
    """Parser of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def matchers(self) -> Iterator[str]:
        """Yield the matchers of the text, at least one.

        Raises:
            InvalidArguments: the text is not valid.
        """
        last, last_in_words = (_CLOSE, "}") if self._next(_OPEN) else (_END, "the end")
        while True:
            name = self._word("the name of a label")
            if not name:
                raise self._fault("the name of the label is empty")
            operator = self._next(_OPERATOR)
            if operator is None:
                raise self._fault("expected one of = != =~ !~")
            value = self._word('a value (an empty one is "")')
            label = name if _PLAIN_NAME.fullmatch(name) else _quoted(name)
            yield f"{label}{operator}{_quoted(value)}"
            comma = self._next(_COMMA)
            if self._next(last) is not None:
                break
            if comma is None:
                raise self._fault(f"expected a comma or {last_in_words}")
        if self._next(_END) is None:
            raise self._fault("expected the end")

    def _next(self, pattern: re.Pattern[str]) -> str | None:
        """Skip blanks, then return the match of `pattern` and move behind it; None: no match."""
        blanks = _BLANKS.match(self._text, self._at)
        self._at = blanks.end() if blanks else self._at
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[0]

    def _word(self, expected: str) -> str:
        word = self._next(_WORD)
        if word is None:
            unclosed = self._text[self._at : self._at + 1] in _QUOTES
            raise self._fault("a quote that is not closed" if unclosed else f"expected {expected}")
        try:
            return _unquoted(word) if word[0] in _QUOTES else word
        except ValueError as error:
            self._at -= len(word)
            raise self._fault(str(error)) from None

    def _fault(self, says: str) -> InvalidArguments:
        found = repr(self._text[self._at]) if self._at < len(self._text) else "the end"
        text = truncate_middle(self._text, _MOST_SHOWN)
        return InvalidArguments(
            f"matchers: {text!r}, character {self._at + 1} ({found}): "
            f'{says}; a matcher is such as job="api" or "service.name"=~"db-.*"'
        )


def _unquoted(word: str) -> str:
    """Return the value of a quoted string.

    Raises:
        ValueError: Go does not have an escape of the string, or the escaped bytes are not UTF-8.
    """
    quote, inner = word[0], word[1:-1]
    if quote == "`":
        return inner

    def meaning(escape: re.Match[bytes]) -> bytes:
        code = escape[0][1:]
        if len(code) > 1:
            if code[0] in b"uU":
                return chr(int(code[1:], 16)).encode()
            return bytes([int(code[1:], 16) if code[0] in b"x" else int(code, 8)])
        if code == quote.encode():
            return code
        return bytes([_LETTERS[code[0]]])

    try:
        return _ESCAPE.sub(meaning, inner.encode()).decode()
    except (LookupError, ValueError):
        raise ValueError("an escape that Go does not have, or bytes that are not UTF-8") from None


def _quoted(text: str) -> str:
    # As few escapes as possible: Alertmanager's classic parser, which it still uses, knows only these.
    return '"' + text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") + '"'
