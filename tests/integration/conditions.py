"""Waiting for what servers do in their own time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["PATIENCE_S", "eventually"]

PATIENCE_S = 180.0
"""Seconds that a server on a busy machine may need."""


async def eventually(ask: Callable[[], Awaitable[Any]], holds: Callable[[Any], Any]) -> Any:
    """Ask until the answer is as it is to be, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        answer = await ask()
        if holds(answer):
            return answer
        await asyncio.sleep(0.1)
    raise AssertionError(f"it stays {answer}")
