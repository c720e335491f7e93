"""All work of a server ends when it has to stop, each piece as if its own deadline were over."""

from __future__ import annotations

import asyncio

import pytest

from mcp_server.tools.deadline import Deadlines, remaining

pytestmark = pytest.mark.anyio


async def late(deadlines: Deadlines, seconds: float = 30) -> str:
    try:
        async with deadlines.within(seconds):
            await asyncio.sleep(60)
    except TimeoutError:
        return "cut off"
    return "ended"


async def test_all_that_runs_is_cut_off_at_once() -> None:
    deadlines = Deadlines()
    running = [asyncio.create_task(late(deadlines)) for _ in range(3)]
    await asyncio.sleep(0)
    deadlines.end()
    deadlines.end()

    async with asyncio.timeout(5):
        assert await asyncio.gather(*running) == ["cut off"] * 3


async def test_what_its_own_deadline_cuts_off_just_then_is_cut_off_once() -> None:
    deadlines = Deadlines()
    running = asyncio.create_task(late(deadlines, 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    deadlines.end()

    assert await running == "cut off"


async def test_what_ended_before_is_left_alone() -> None:
    deadlines = Deadlines()
    async with deadlines.within(30):
        assert 29 > remaining(60) > 26  # nine tenths
    deadlines.end()
    await asyncio.sleep(0.01)


async def test_no_work_begins_afterwards() -> None:
    deadlines = Deadlines()
    deadlines.end()

    async with asyncio.timeout(5):
        assert await late(deadlines) == "cut off"
