"""Label matchers, as Prometheus and Alertmanager write them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from mcp_server.tools.faults import InvalidArguments
from mcp_server.tools.text import clipped

__all__ = ["LONGEST_MATCHER", "MOST_MATCHERS", "matchers_of"]

_MATCHER = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
MOST_MATCHERS = 20
LONGEST_MATCHER = 1024
_MOST_SHOWN = 200


def matchers_of(asked: Sequence[str]) -> list[str]:
    """Return matchers in the form that both systems read: `label op "value"`.

    Args:
        asked: matchers such as `job=~"api.*"`, with or without quotes.

    Raises:
        InvalidArguments: one is none.
    """
    return [_normal(matcher) for matcher in asked]


def _normal(matcher: str) -> str:
    shown = repr(clipped(matcher, _MOST_SHOWN))
    match = _MATCHER.fullmatch(matcher)
    if match is None:
        raise InvalidArguments(
            f"matchers: {shown} is not a label, one of = != =~ !~, and a value, such as "
            'job="api" or instance=~"db-.*"'
        )
    label, operator, value = match.groups()
    if value.startswith('"'):
        try:
            value = json.loads(value)
        except ValueError:
            raise InvalidArguments(
                f"matchers: the quotes or escapes of {shown} are not right"
            ) from None
    # The escapes of JSON are read alike by Go, in which both systems are written.
    return f"{label}{operator}{json.dumps(value, ensure_ascii=False)}"
