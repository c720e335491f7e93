"""Results as text for a model: a table costs a fraction of the tokens of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcp_server.redaction import REDACTED

__all__ = ["notes", "table", "truncate_middle"]

_MAX_CELL = 200
_GAP = " … "
# Labels that may name a Secret and then are left as they are (`redact_labels`): as an assignment their
# text would be taken for a credential.
_NAMED = ("secret", "secret_key")


def truncate_middle(text: str, most: int) -> str:
    """Return `text`, or its beginning and its end with an ellipsis between: `most` characters.

    What wraps an error puts the cause last. Take secrets out before: of one that is cut, the end would
    not be known as such.
    """
    if len(text) <= most:
        return text
    kept = most - len(_GAP)
    tail = kept // 2
    return text[: kept - tail] + _GAP + text[len(text) - tail :]


def notes(told: Any) -> list[str]:
    """Return the notes of a result, or what masks them, as lines of its text."""
    return [f"note: {each}" for each in (told if isinstance(told, list) else [told])]


def table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    widths: Mapping[str, int] | None = None,
) -> str:
    """Return `rows` as lines of ` | `-separated cells below a header line.

    Cells are cut in their middle and never hold a line break or the separator, so that text from
    outside cannot draw rows of its own.

    Args:
        widths: how many characters a cell of a column has at most, where it is not 200.
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
