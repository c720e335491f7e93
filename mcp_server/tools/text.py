"""Results as text for a model: a table costs a fraction of the tokens of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["table"]

_MAX_CELL = 200


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return `rows` as lines of ` | `-separated cells below a header line.

    Cells are cut at 200 characters and never hold a line break or the separator, so that text from
    outside cannot draw rows of its own.
    """
    lines = [" | ".join(columns)]
    lines += [" | ".join(_cell(row.get(column)) for column in columns) for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        value = ", ".join(f"{key}={item}" for key, item in value.items())
    text = " ".join(str(value).split()).replace("|", "/")
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…"
