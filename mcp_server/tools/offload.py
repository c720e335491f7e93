"""Run CPU-bound work in a thread, so that the event loop keeps serving other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["offload"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Work on fewer items takes less time (a few milliseconds) than starting and awaiting a thread.
_MIN_ITEMS = 500
# Two threads only: further work queues, and the event loop keeps most of the interpreter's time.
_WORKERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="offload")


async def offload(
    size: int, work: Callable[_P, _T], /, *arguments: _P.args, **options: _P.kwargs
) -> _T:
    """Return the result of `work`, which runs in a thread if it processes many items.

    A cancelled caller does not stop the work: the thread runs to its end.

    Args:
        size: number of items to process, each of which takes some microseconds.
    """
    if size <= _MIN_ITEMS:
        return work(*arguments, **options)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_WORKERS, lambda: work(*arguments, **options))
