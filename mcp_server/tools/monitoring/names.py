"""Names of metrics: names in a query, and similar names."""

from __future__ import annotations

import asyncio
import difflib
import heapq
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mcp_server.tools.catalog import ToolContext

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
    """Return the names of metrics in a PromQL query, in order and without duplicates.

    Good enough for a hint: it matches words and does not parse.
    """
    named = [first or second for first, second in _NAME_MATCHER.findall(query)]
    named += _NAME_IN_BRACES.findall(query)
    # Strings first: they may contain anything.
    bare = _COMMENT.sub("", _STRING.sub('""', query))
    bare = _LABEL_LIST.sub(" ", _BRACES.sub(" ", bare))
    words = [word for word in _IDENTIFIER.findall(bare) if word.lower() not in _WORDS]
    return list(dict.fromkeys([*words, *named]))


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """Return up to three of the `known` names that are similar to `name`, most similar first.

    Of very many names, only those with the most common trigrams are compared. Names of more than 200
    characters have no similar names.
    """
    if len(name) > _LONGEST_COMPARED:
        return []
    # Shorter and longer names cannot reach the required similarity.
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
    """Searches similar names in a thread, one search at a time.

    A search takes up to a third of a second of CPU time, for a hint only: it is skipped if too many
    searches are waiting.

    Args:
        most_waiting: maximum number of waiting searches.
    """

    def __init__(self, *, most_waiting: int = 8) -> None:
        self._most = 1 + most_waiting
        self._asked = 0

    async def for_caller(self, name: str, known: Sequence[str], context: ToolContext) -> list[str]:
        """Return similar names; nothing if the policy masks names of metrics."""
        if not context.masked.isdisjoint(("name", "__name__")):
            return []
        return await self.of(name, known)

    async def of(self, name: str, known: Sequence[str]) -> list[str]:
        """Return the result of `near_names`, or nothing if too many searches are waiting."""
        if self._asked >= self._most:
            return []
        self._asked += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(_SEARCHER, near_names, name, known)
        finally:
            self._asked -= 1
