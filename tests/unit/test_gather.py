"""Questions that are asked at the same time."""

from __future__ import annotations

import asyncio

import pytest

from mcp_server.tools.catalog import ToolError
from mcp_server.tools.gather import gather_or_cancel

pytestmark = pytest.mark.anyio


async def after(seconds: float, answer: str) -> str:
    await asyncio.sleep(seconds)
    return answer


async def test_answers_come_in_the_order_of_the_questions() -> None:
    assert await gather_or_cancel(after(0.01, "a"), after(0, "b"), after(0, "c")) == ("a", "b", "c")
    assert await gather_or_cancel() == ()


async def test_the_first_error_is_raised_as_it_is_and_the_others_are_given_up() -> None:
    given_up = []

    async def fails() -> str:
        await asyncio.sleep(0)
        raise ToolError("first") from ValueError("its cause")

    async def waits() -> str:
        try:
            return await after(60, "never")
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            given_up.append(True)
            raise ToolError("second") from None

    with pytest.raises(ToolError, match="first") as failed:
        await gather_or_cancel(waits(), fails(), waits())

    assert given_up == [True, True]
    assert isinstance(failed.value.__cause__, ValueError)


async def test_who_gives_up_waits_for_all_of_them() -> None:
    ended = []

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await gather_or_cancel(waits(), waits())

    assert ended == [True, True]
