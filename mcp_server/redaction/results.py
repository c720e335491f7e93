"""Results of tools and resources without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_server.redaction.names import redact_labels
from mcp_server.redaction.text import redact_text
from mcp_server.redaction.walker import Walker

__all__ = ["redact_json"]

_LABEL_SETS = frozenset({"annotations", "labels"})


def redact_json(value: Any) -> Any:
    """Return a copy of a JSON value in which texts and keys lose what looks like a secret.

    A value whose key only sounds secret stays: a metric named `token_reviews_total` has an honest value.
    Labels and annotations are the exception, because people choose their keys: there the value of a
    secret's name is replaced. Keys that become alike are numbered, so that none replaces another.
    """
    return _RESULTS.value(value)


class _Results(Walker):
    text = staticmethod(redact_text)

    def object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if key in _LABEL_SETS and isinstance(item, dict):
                item = redact_labels(item)  # noqa: PLW2901 - the same member, without its secrets
            kept[_unused(redact_text(str(key)), kept)] = self.value(item, depth + 1)
        return kept


_RESULTS = _Results()


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """Return `name`, numbered from 2 on where it is taken."""
    if name not in taken:
        return name
    number = 2
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"
