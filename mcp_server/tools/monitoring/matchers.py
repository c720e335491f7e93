"""Label matchers, as Prometheus and Alertmanager write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from mcp_server.tools.catalog import ToolError

__all__ = ["matchers_of"]

_MATCHER = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST = 20


def matchers_of(asked: Mapping[str, str] | Sequence[str]) -> list[str]:
    """Return matchers in the form that both systems read: `label op "value"`.

    Args:
        asked: labels and the values they must have, or matchers such as `job=~"api.*"` (with or
            without quotes).

    Raises:
        ToolError: one is none.
    """
    if len(asked) > _MOST:
        raise ToolError(f"matchers: {len(asked)} are too many; at most {_MOST}")
    if isinstance(asked, Mapping):
        for label in asked:
            if not _LABEL.fullmatch(label):
                raise ToolError(f"matchers: {label!r} is not the name of a label")
        return [f"{label}={_quoted(value)}" for label, value in asked.items()]
    return [_normal(matcher) for matcher in asked]


def _normal(matcher: str) -> str:
    match = _MATCHER.fullmatch(matcher)
    if match is None:
        raise ToolError(
            f"matchers: {matcher!r} is not a label, one of = != =~ !~, and a value, such as "
            'job="api" or instance=~"db-.*"'
        )
    label, operator, value = match.groups()
    if value.startswith('"'):
        try:
            value = json.loads(value)
        except ValueError:
            raise ToolError(
                f"matchers: the quotes or escapes of {matcher!r} are not right"
            ) from None
    return f"{label}{operator}{_quoted(value)}"


def _quoted(value: str) -> str:
    # The escapes of JSON are read alike by Go, in which both systems are written.
    return json.dumps(value, ensure_ascii=False)
