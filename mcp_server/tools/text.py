"""Results as text for a model: a table costs a fraction of the tokens of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcp_server.redaction import REDACTED

__all__ = ["notes", "table", "truncate_middle"]

_MAX_CELL = 200
_GAP = " … "
# Labels that may name a Secret; `redact_labels` keeps their values. As an assignment in text, their
# values would be redacted as credentials.
_NAMED = ("secret", "secret_key")


def truncate_middle(text: str, most: int) -> str:
    """Return `text`, shortened to `most` characters with an ellipsis in the middle.

    The cause of a wrapped error is at its end, so the end is kept. Redact secrets first: the end of a
    secret that was cut would not be recognized.
    """
    if len(text) <= most:
        return text
    kept = most - len(_GAP)
    tail = kept // 2
    return text[: kept - tail] + _GAP + text[len(text) - tail :]


def notes(value: Any) -> list[str]:
    """Return the notes of a result, or their mask, as lines of text."""
    return [f"note: {each}" for each in (value if isinstance(value, list) else [value])]


def table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    widths: Mapping[str, int] | None = None,
) -> str:
    """Return `rows` as lines of ` | `-separated cells below a header line.

    Cells are shortened in the middle and never contain a line break or the separator, so external text
    cannot add rows.

    Args:
        widths: maximum characters of a cell, per column; by default 200.
    """
    most = {column: (widths or {}).get(column, _MAX_CELL) for column in columns}
    lines = [" | ".join(columns)]
    lines += [
        " | ".join(_cell(column, row.get(column), most[column]) for column in columns)
        for row in rows
    ]
    return "\n".join(lines)


def _cell(column: str, value: Any, most: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        named = _NAMED if column == "labels" else ()
        value = ", ".join(
            f"{key} {item}" if key in named and item != REDACTED else f"{key}={item}"
            for key, item in value.items()
        )
    if isinstance(value, list):
        value = ", ".join(map(str, value)) or "-"
    return truncate_middle(" ".join(str(value).split()).replace("|", "/"), most)
