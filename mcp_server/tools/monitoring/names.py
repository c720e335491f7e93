"""Names of metrics: those in a query, and those that are near."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

__all__ = ["names_in", "near_names"]

_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`')
_COMMENT = re.compile(r"#[^\n]*")
_NAME_MATCHER = re.compile(r'__name__\s*=\s*(?:"([^"\\]+)"|\'([^\'\\]+)\')')
_NAME_IN_BRACES = re.compile(r'\{\s*"([^"\\]+)"\s*[,}]')
_BRACES = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]")
_LABEL_LIST = re.compile(
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)", re.IGNORECASE
)
_IDENTIFIER = re.compile(r"(?<![\w:.])[A-Za-z_:][\w:]*(?![\w:]|\s*\()", re.ASCII)
_WORDS = frozenset(
    (
        "and",
        "or",
        "unless",
        "atan2",
        "bool",
        "offset",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "inf",
        "nan",
        "start",
        "end",
        "sum",
        "avg",
        "count",
        "min",
        "max",
        "group",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "count_values",
        "quantile",
        "limitk",
        "limit_ratio",
    )
)
_MOST_NAMES = 3
_MOST_COMPARED = 20_000


def names_in(query: str) -> list[str]:
    """Return the names of metrics that stand in PromQL, in their order, each once.

    Good enough for a hint: it reads words, not grammar.
    """
    named = [first or second for first, second in _NAME_MATCHER.findall(query)]
    named += _NAME_IN_BRACES.findall(query)
    # Strings first: they may hold anything that looks like the rest.
    bare = _COMMENT.sub("", _STRING.sub('""', query))
    bare = _LABEL_LIST.sub(" ", _BRACES.sub(" ", bare))
    words = [word for word in _IDENTIFIER.findall(bare) if word.lower() not in _WORDS]
    return list(dict.fromkeys([*words, *named]))


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """Return up to three of the `known` names that are like `name`, the nearest first.

    Of very many names only those that share a word with it are compared, and at most 20,000.
    """
    candidates: Iterable[str] = known
    if len(known) > _MOST_COMPARED:
        words = {word for word in re.split(r"[_:]", name.lower()) if len(word) > 2}
        candidates = [each for each in known if any(word in each.lower() for word in words)]
        candidates = candidates[:_MOST_COMPARED]
    return difflib.get_close_matches(name, candidates, n=_MOST_NAMES, cutoff=0.6)
