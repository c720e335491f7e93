"""The deadline of the current call, for code that divides the remaining time among backends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

__all__ = ["Deadlines", "deadline", "remaining"]

# The remaining tenth is for reporting the backend that did not answer, before the call is cancelled.
_SHARE = 0.9

_END: ContextVar[float] = ContextVar("end", default=math.inf)


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Cancel a block after `seconds`, or earlier at the deadline of an enclosing block.

    Yields the timeout, with which the deadline can be moved.

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
    """The deadlines of all calls of one server, so that the server can end them when it stops.

    Attributes:
        over: whether `end` was called; every later call ends at once.
    """

    def __init__(self) -> None:
        self.over = False
        self._running: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Cancel a block as `deadline` does, or when `end` is called.

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
        """End all calls now, as if their deadline had passed."""
        self.over = True
        for timeout in self._running:
            if not timeout.expired():
                timeout.reschedule(0)


def remaining(seconds: float) -> float:
    """Return `seconds`, or nine tenths of the time until the deadline of the current call if less."""
    return min(seconds, _SHARE * max(0.0, _END.get() - asyncio.get_running_loop().time()))
