"""Long work of the processor, done beside the event loop: meanwhile other callers are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["beside"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Fewer things are done sooner than a thread is woken and waited for, in a few milliseconds.
_FEW = 500
# Two: what more there is waits, and the event loop keeps most of the time.
_WORKERS = ThreadPoolExecutor(max_workers=2, thread_name_prefix="beside")


async def beside(
    size: int, work: Callable[_P, _T], /, *arguments: _P.args, **options: _P.kwargs
) -> _T:
    """Return what `work` returns; where it is about many things, it is done in a thread.

    The work goes on to its end though its caller gave up.

    Args:
        size: how many things, each of some microseconds, the work is about.
    """
    if size <= _FEW:
        return work(*arguments, **options)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_WORKERS, lambda: work(*arguments, **options))
