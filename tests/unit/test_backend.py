"""The guard around a backend: deadline, retry, circuit breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from mcp_server.tools.backend import BackendUnavailable, Guard
from mcp_server.tools.catalog import ToolError

pytestmark = pytest.mark.anyio


class Asked:
    """Counts how often a backend was asked; raises what it is given, in turn, then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.times = 0
        self._errors = list(errors)

    async def __call__(self) -> str:
        self.times += 1
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


def lost() -> aiohttp.ClientConnectionError:
    return aiohttp.ServerDisconnectedError()


async def open_circuit(guard: Guard) -> None:
    for _ in range(5):
        with pytest.raises(BackendUnavailable):
            await guard.call(Asked(lost()), retry=False)


async def test_a_read_is_tried_again_after_a_lost_connection_and_a_change_is_not() -> None:
    guard = Guard("B", timeout_s=5)
    read, change = Asked(lost()), Asked(lost())

    assert await guard.call(read, retry=True) == "answer"
    with pytest.raises(BackendUnavailable, match="B is not available: ServerDisconnectedError"):
        await guard.call(change, retry=False)

    assert (read.times, change.times) == (2, 1)


async def test_a_slow_backend_meets_the_deadline() -> None:
    async def slow() -> None:
        await asyncio.sleep(30)

    with pytest.raises(BackendUnavailable, match=r"no answer within 0\.01 s"):
        await Guard("B", timeout_s=0.01).call(slow, retry=True)


async def test_after_five_failures_calls_are_refused_without_asking() -> None:
    guard = Guard("B", timeout_s=5)
    await open_circuit(guard)
    asked = Asked()

    with pytest.raises(BackendUnavailable, match=r"the last calls failed; tried again in \d+ s"):
        await guard.call(asked, retry=True)

    assert asked.times == 0


async def test_an_open_circuit_lets_a_call_through_after_its_time_and_closes() -> None:
    guard = Guard("B", timeout_s=5, open_s=0.05)
    await open_circuit(guard)
    await asyncio.sleep(0.06)

    assert await guard.call(Asked(), retry=False) == "answer"
    assert await guard.call(Asked(), retry=False) == "answer"


@pytest.mark.parametrize(
    "error", [ToolError("bad query"), asyncio.CancelledError()], ids=["refusal", "cancelled"]
)
async def test_what_is_not_the_backends_fault_does_not_open_the_circuit(
    error: BaseException,
) -> None:
    guard = Guard("B", timeout_s=5)
    raising: Callable[[], Awaitable[str]] = Asked(*[error] * 20)
    for _ in range(20):
        with pytest.raises(type(error)):
            await guard.call(raising, retry=False)

    assert await guard.call(raising, retry=False) == "answer"
