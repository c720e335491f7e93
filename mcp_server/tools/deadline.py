"""The deadline of the work that runs, for those who divide what is left of it among what they ask."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

__all__ = ["Deadlines", "deadline", "within"]

# The rest is for telling what did not answer, before the work is cut off.
_SHARE = 0.9

_END: ContextVar[float] = ContextVar("end", default=math.inf)


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Cut a block off after `seconds`, or at the deadline of a block around it, and let it know.

    Gives what cuts it off.

    Raises:
        TimeoutError: the block did not end in time.
    """
    end = min(asyncio.get_running_loop().time() + seconds, _END.get())
    token = _END.set(end)
    try:
        async with asyncio.timeout_at(end) as timeout:
            yield timeout
    finally:
        _END.reset(token)


class Deadlines:
    """The deadlines of all work that one server does, which has to stop some day.

    Attributes:
        over: whether they were ended; no work begins after that.
    """

    def __init__(self) -> None:
        self.over = False
        self._running: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Cut a block off as `deadline` does, or when all work ends.

        Raises:
            TimeoutError: the block did not end in time.
        """
        async with deadline(0 if self.over else seconds) as timeout:
            self._running.add(timeout)
            try:
                yield
            finally:
                self._running.remove(timeout)

    def end(self) -> None:
        """Cut all work off now, as if its deadline were over."""
        self.over = True
        for timeout in self._running:
            if not timeout.expired():
                timeout.reschedule(0)


def within(seconds: float) -> float:
    """Return `seconds`, or nine tenths of what the work that calls this has left, where that is less."""
    return min(seconds, _SHARE * max(0.0, _END.get() - asyncio.get_running_loop().time()))
