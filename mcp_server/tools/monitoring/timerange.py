"""Time range of a query: the requested range, and a step that limits the number of points."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime

from mcp_server.tools.validation import InvalidArguments

__all__ = ["MAX_POINTS", "Evaluation", "Window", "evaluation", "instant", "seconds", "window_of"]

MAX_POINTS = 500
"""Maximum points of one series."""

_DURATION = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d|w)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MAX_SPAN_S = 366 * 86400
_DEFAULT_SPAN = "5m"
# Round steps; larger steps are whole days.
_SHORT_STEPS_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800)
_STEPS_S = (*_SHORT_STEPS_S, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Window:
    """A range of time in Unix seconds."""

    start: float
    end: float

    @property
    def span_s(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Times of a range query: every `step_s` seconds from `start`; the last one is exactly `end`."""

    start: float
    end: float
    step_s: float


def seconds(name: str, text: str) -> int:
    """Return a duration such as `5m` in seconds.

    Raises:
        InvalidArguments: the text is not a duration; `name` is the argument that contains it.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidArguments(
            f"{name}: {text!r} is not a number and s, m, h, d or w, such as 5m, 2h, 7d; at least 1s"
        )
    return int(match[1]) * _UNIT_S[match[2]]


def instant(name: str, when: str) -> float:
    """Return a point in time as Unix seconds.

    Args:
        when: RFC 3339 with an offset, or Unix seconds.

    Raises:
        InvalidArguments: the text is neither; `name` is the argument that contains it.
    """
    try:
        time_s = float(when)
    except ValueError:
        try:
            # RFC 3339, section 5.6 allows lower case letters, which Python does not parse.
            moment = datetime.fromisoformat(when.upper())
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise InvalidArguments(
                f"{name}: {when!r} is neither RFC 3339 with an offset, such as "
                "2026-01-31T12:00:00Z, nor Unix seconds"
            ) from None
        time_s = moment.timestamp()
    if not 0 <= time_s < 2**40:
        raise InvalidArguments(f"{name}: {when!r} is not a time that can be asked for")
    return time_s


def window_of(time_range: str | None, start: str | None, end: str | None, *, now: float) -> Window:
    """Return the range that the arguments select; without arguments, the last five minutes.

    Raises:
        InvalidArguments: the arguments contradict each other, or the range is empty or over 366 days.
    """
    if time_range is not None and (start is not None or end is not None):
        raise InvalidArguments("give either time_range or start (with an optional end), not both")
    if start is None and end is not None:
        raise InvalidArguments("end needs a start; use time_range for a span that ends now")
    if start is None:
        found = Window(now - seconds("time_range", time_range or _DEFAULT_SPAN), now)
    else:
        found = Window(instant("start", start), now if end is None else instant("end", end))
        if found.span_s <= 0:
            raise InvalidArguments("start must be before end (which is now when it is left out)")
    if found.span_s > _MAX_SPAN_S:
        raise InvalidArguments(
            f"the range is {found.span_s / 86400:.0f} days long; at most 366 days can be asked for"
        )
    return found


def evaluation(asked: Window, *, max_points: int = MAX_POINTS) -> Evaluation:
    """Return the times to evaluate, with the smallest round step that needs at most `max_points`.

    Args:
        max_points: maximum points of each series; at least 2.
    """
    least_s = asked.span_s / (max_points - 1)
    step_s = next(
        (each for each in _STEPS_S if each >= least_s), math.ceil(least_s / 86400) * 86400
    )
    # Counted back from the end, so that the latest value is the one at the end, and not one of up to a
    # step earlier.
    intervals = int(asked.span_s // step_s)
    return Evaluation(asked.end - intervals * step_s, asked.end, step_s)
