"""The deadline of the work that runs, for those who divide what is left of it among what they ask."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

__all__ = ["deadline", "within"]

# The rest is for telling what did not answer, before the work is cut off.
_SHARE = 0.9

_END: ContextVar[float] = ContextVar("end", default=math.inf)


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Cut a block off after `seconds`, or at the deadline of a block around it, and let it know.

    Raises:
        TimeoutError: the block did not end in time.
    """
    end = min(asyncio.get_running_loop().time() + seconds, _END.get())
    token = _END.set(end)
    try:
        async with asyncio.timeout_at(end):
            yield
    finally:
        _END.reset(token)


def within(seconds: float) -> float:
    """Return `seconds`, or nine tenths of what the work that calls this has left, where that is less."""
    return min(seconds, _SHARE * max(0.0, _END.get() - asyncio.get_running_loop().time()))
