"""Names of metrics: those in a query, and those that are near."""

from __future__ import annotations

import asyncio
import difflib
import heapq
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

__all__ = ["NearNames", "names_in", "near_names"]

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
_LIKE = 0.6
_LONGEST_COMPARED = 200
_MOST_COMPARED = 1_000
_MOST_RANKED = 100_000
_SEARCHER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="near-names")


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

    Of very many names only those are compared that share the most groups of three letters with it;
    none is like a name of more than 200 characters.
    """
    if len(name) > _LONGEST_COMPARED:
        return []
    # What is shorter or longer cannot reach the likeness that is asked for.
    least, most = (len(name) * share for share in (_LIKE / (2 - _LIKE), (2 - _LIKE) / _LIKE))
    candidates = [each for each in known if least <= len(each) <= most]
    if len(candidates) > _MOST_COMPARED:
        groups = {name[start : start + 3] for start in range(len(name) - 2)}
        candidates = heapq.nlargest(
            _MOST_COMPARED,
            candidates[:_MOST_RANKED],
            key=lambda each: sum(group in each for group in groups),
        )
    return difflib.get_close_matches(name, candidates, n=_MOST_NAMES, cutoff=_LIKE)


class NearNames:
    """Looks for near names beside the event loop, one search at a time.

    A search is a hint that costs up to a third of a second of a processor: where others wait for
    theirs already, it is left out.

    Args:
        most_waiting: how many searches may wait.
    """

    def __init__(self, *, most_waiting: int = 8) -> None:
        self._most = 1 + most_waiting
        self._asked = 0

    async def of(self, name: str, known: Sequence[str]) -> list[str]:
        """Return what `near_names` does, or nothing where too many searches wait."""
        if self._asked >= self._most:
            return []
        self._asked += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(_SEARCHER, near_names, name, known)
        finally:
            self._asked -= 1
