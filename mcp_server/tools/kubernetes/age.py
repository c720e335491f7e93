"""Ages as kubectl writes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

__all__ = ["age"]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def age(created: str | None, now: datetime | None = None) -> str:
    """Return the time since an RFC 3339 time, in kubectl's short form: `45s`, `3h12m`, `20d`."""
    if not created:
        return "<unknown>"
    then = datetime.fromisoformat(created)
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    steps: tuple[tuple[int, Callable[[int], str]], ...] = (
        (2 * _MINUTE, lambda s: f"{s}s"),
        (10 * _MINUTE, lambda s: _two(s, _MINUTE, "m", 1, "s")),
        (3 * _HOUR, lambda s: f"{s // _MINUTE}m"),
        (8 * _HOUR, lambda s: _two(s, _HOUR, "h", _MINUTE, "m")),
        (2 * _DAY, lambda s: f"{s // _HOUR}h"),
        (8 * _DAY, lambda s: _two(s, _DAY, "d", _HOUR, "h")),
        (2 * 365 * _DAY, lambda s: f"{s // _DAY}d"),
        (8 * 365 * _DAY, lambda s: _two(s, 365 * _DAY, "y", _DAY, "d")),
    )
    for below, text in steps:
        if seconds < below:
            return text(seconds)
    return f"{seconds // (365 * _DAY)}y"


def _two(seconds: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large}{large_name}" + (f"{rest}{small_name}" if rest else "")
