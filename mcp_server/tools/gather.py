"""Run coroutines concurrently; the first failure cancels the others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

__all__ = ["gather_or_cancel"]

_T = TypeVar("_T")
_First = TypeVar("_First")
_Second = TypeVar("_Second")


@overload
async def gather_or_cancel(
    first: Coroutine[Any, Any, _First], second: Coroutine[Any, Any, _Second], /
) -> tuple[_First, _Second]: ...


@overload
async def gather_or_cancel(*coroutines: Coroutine[Any, Any, _T]) -> tuple[_T, ...]: ...


async def gather_or_cancel(*coroutines: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Return the results in the order of the coroutines.

    No coroutine is still running when this function returns or raises.

    Raises:
        BaseException: the exception of the first coroutine that failed, not an exception group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failed:
        # Raised outside of this block, so that the exception keeps its own cause.
        first = failed.exceptions[0]
    else:
        return tuple(task.result() for task in tasks)
    raise first
