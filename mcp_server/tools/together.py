"""Questions that are asked at the same time: where one fails, the others are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, overload

__all__ = ["together"]

_T = TypeVar("_T")
_First = TypeVar("_First")
_Second = TypeVar("_Second")


@overload
async def together(
    first: Coroutine[Any, Any, _First], second: Coroutine[Any, Any, _Second], /
) -> tuple[_First, _Second]: ...


@overload
async def together(*questions: Coroutine[Any, Any, _T]) -> tuple[_T, ...]: ...


async def together(*questions: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Return the answers, in the order of the questions.

    None of them is still being asked when this returns or raises.

    Raises:
        BaseException: what the first question that failed raised; no group of errors.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(question) for question in questions]
    except BaseExceptionGroup as failed:
        # Raised below, so that it keeps its own cause.
        first = failed.exceptions[0]
    else:
        return tuple(task.result() for task in tasks)
    raise first
