"""The guard of a backend: deadline, retry, concurrency limit, circuit breaker."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from unittest.mock import Mock

import aiohttp
import pytest

from mcp_server.tools.backend import (
    OPEN_S,
    BackendUnavailable,
    Guard,
    OutcomeUnknown,
    ResponseTooLarge,
    parse_json,
)
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.deadline import deadline, remaining
from mcp_server.tools.gather import gather_or_cancel
from tests.clocks import Clock

pytestmark = pytest.mark.anyio


class Asked:
    """A request that counts its attempts; raises the given errors in turn, then answers."""

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
        with pytest.raises(OutcomeUnknown):
            await guard.call(Asked(lost()), retry=False)


async def test_a_read_is_retried_after_a_lost_connection_and_a_change_is_not() -> None:
    guard = Guard("B", timeout_s=5)
    read, change = Asked(lost()), Asked(lost())

    assert await guard.call(read, retry=True) == "answer"
    with pytest.raises(OutcomeUnknown, match="B closed the connection; before you try again"):
        await guard.call(change, retry=False)

    assert (read.times, change.times) == (2, 1)


async def test_a_slow_backend_is_unavailable_at_the_deadline() -> None:
    async def slow() -> None:
        await asyncio.sleep(30)

    with pytest.raises(BackendUnavailable, match=r"no answer within 0\.01 s"):
        await Guard("B", timeout_s=0.01).call(slow, retry=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            aiohttp.ClientConnectorError(Mock(), OSError("refused")),
            "it does not accept connections",
        ),
        (aiohttp.ClientConnectorDNSError(Mock(), OSError()), "the name of its host is not known"),
        (aiohttp.ClientConnectorSSLError(Mock(), OSError()), "its certificate is not accepted"),
        (aiohttp.ClientConnectorCertificateError(Mock(), OSError()), "its certificate is not"),
        (lost(), "it closed the connection"),
        (aiohttp.ClientPayloadError(), "it closed the connection"),
        (aiohttp.ConnectionTimeoutError(), r"no connection within 2\.5 s"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_outage_is_described_in_words(error: Exception, said: str) -> None:
    with pytest.raises(BackendUnavailable, match=f"^B is not available: {said}"):
        await Guard("B", timeout_s=5).call(Asked(error, error), retry=True)


class TestDeadlineOfTheTool:
    """The deadline of a tool call that ends before the deadline of the backend."""

    async def test_the_tool_learns_which_backend_did_not_answer_before_its_deadline(self) -> None:
        guard = Guard("B", timeout_s=30)
        async with deadline(2):
            heard = await asyncio.gather(
                *(guard.call(forever, retry=True) for _ in range(5)), return_exceptions=True
            )

        for error in heard:
            assert isinstance(error, BackendUnavailable)
            assert re.fullmatch(r"B is not available: no answer within 1\.\d+ s", str(error))
        with pytest.raises(BackendUnavailable, match="recent calls failed"):
            await guard.call(Asked(), retry=True)

    async def test_a_backend_without_time_to_answer_counts_no_failure(self) -> None:
        guard = Guard("B", timeout_s=30)
        async with deadline(0.45):
            heard = await asyncio.gather(
                *(guard.call(forever, retry=True) for _ in range(6)), return_exceptions=True
            )

        for error in heard:
            assert isinstance(error, ToolError)
            assert "no time left to wait for B" in str(error)
            assert error.retryable

        assert await guard.call(Asked(), retry=True) == "answer"

    async def test_a_change_is_not_sent_without_time_for_its_response(self) -> None:
        change = Asked()
        with pytest.raises(ToolError, match="no time left") as late:
            async with deadline(0.3):
                await Guard("B", timeout_s=30).call(change, retry=False)

        assert change.times == 0
        assert late.value.retryable

    async def test_a_cancelled_call_counts_neither_as_success_nor_as_failure(self) -> None:
        guard = Guard("B", timeout_s=30)
        for _ in range(4):
            with pytest.raises(OutcomeUnknown):
                await guard.call(Asked(lost()), retry=False)
        gone = asyncio.create_task(guard.call(forever, retry=True))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        with pytest.raises(OutcomeUnknown):
            await guard.call(Asked(lost()), retry=False)

        with pytest.raises(BackendUnavailable, match="recent calls failed"):
            await guard.call(Asked(), retry=True)

    async def test_a_deadline_inside_another_ends_no_later(self) -> None:
        assert remaining(7) == 7
        async with deadline(100):
            async with deadline(1000):
                assert 50 < remaining(700) <= 90
            async with deadline(1):
                assert remaining(700) <= 0.9
            assert 50 < remaining(700) <= 90
        assert remaining(7) == 7


async def forever() -> None:
    await asyncio.sleep(60)


class TestConcurrencyLimit:
    """The limit of concurrent calls."""

    async def test_a_call_without_a_slot_is_refused_and_counts_no_failure(self) -> None:
        guard, asked = Guard("B", timeout_s=30, max_concurrent=2), Asked()
        waiting = [asyncio.create_task(guard.call(forever, retry=True)) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await asyncio.gather(
            *(guard.call(asked, retry=False) for _ in range(6)), return_exceptions=True
        )
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

        for error in refused:
            assert isinstance(error, ToolError)
            assert str(error).startswith("2 calls of this server are waiting for B; try again")
            assert error.retryable
        assert asked.times == 0
        assert await guard.call(asked, retry=False) == "answer"

    async def test_a_call_waits_for_a_slot(self) -> None:
        guard = Guard("B", timeout_s=30, max_concurrent=1)
        first = asyncio.create_task(guard.call(lambda: asyncio.sleep(0.1), retry=True))
        await asyncio.sleep(0)

        assert await guard.call(Asked(), retry=False) == "answer"
        await first

    async def test_a_stream_takes_no_slot(self) -> None:
        guard = Guard("B", timeout_s=30, max_concurrent=1)
        lasting = [
            asyncio.create_task(guard.call(forever, retry=True, streaming=True)) for _ in range(3)
        ]
        await asyncio.sleep(0)

        assert await guard.call(Asked(), retry=True) == "answer"
        for task in lasting:
            task.cancel()
        await asyncio.wait(lasting)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (lost(), "closed the connection"),
        (aiohttp.ClientPayloadError(), "closed the connection"),
        (TimeoutError(), "gave no answer within 5 s"),
        (BackendUnavailable("B", "it answered HTTP 504"), "HTTP 504"),
        (ResponseTooLarge("B", 2**20), "more than 1 MiB"),
    ],
    ids=["lost", "cut", "late", "error", "too large"],
)
async def test_the_outcome_of_a_change_without_a_response_is_unknown(
    error: Exception, said: str
) -> None:
    with pytest.raises(OutcomeUnknown, match=said) as unknown:
        await Guard("B", timeout_s=5).call(Asked(error), retry=False, verify_hint="look at it")

    assert str(unknown.value).endswith("; before you try again, look at it")
    assert not unknown.value.retryable


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ClientConnectorError(Mock(), OSError("refused")),
        aiohttp.ConnectionTimeoutError(),
        aiohttp.ClientHttpProxyError(Mock(), (), status=502),
    ],
    ids=["refused", "no connection in time", "a proxy"],
)
async def test_a_change_that_was_not_sent_is_retryable(error: Exception) -> None:
    with pytest.raises(BackendUnavailable) as unavailable:
        await Guard("B", timeout_s=5).call(Asked(error), retry=False)

    assert unavailable.value.retryable


async def test_an_open_circuit_refuses_a_change() -> None:
    guard = Guard("B", timeout_s=5)
    await open_circuit(guard)

    with pytest.raises(BackendUnavailable, match="recent calls failed"):
        await guard.call(Asked(), retry=False)


async def test_long_and_short_texts_are_parsed_alike() -> None:
    value = {"items": [{"n": n, "text": "x" * 100, "of": {"a": [1.5, None]}} for n in range(5000)]}

    assert await parse_json(json.dumps(value).encode()) == value
    for faulty in (b"", b"{" * 10, b"x" * 2**20, b"[" * 2**20):
        with pytest.raises((ValueError, RecursionError)):
            await parse_json(faulty)


async def test_parsing_a_long_text_does_not_block_the_event_loop() -> None:
    document = [{"values": [[1700000000.5 + n, "1.5"] for n in range(50)]} for _ in range(8000)]
    text = json.dumps(document).encode()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    running = asyncio.create_task(others())
    await parse_json(text)
    running.cancel()

    # The parser alone would keep the interpreter for all of this text's 12 MB.
    assert turns >= 5


async def test_five_failures_in_a_row_open_the_circuit() -> None:
    guard = Guard("B", timeout_s=5)
    await open_circuit(guard)
    asked = Asked()

    with pytest.raises(BackendUnavailable, match=r"recent calls failed; next attempt in \d+ s"):
        await guard.call(asked, retry=True)

    assert asked.times == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_successful_trial_closes_the_circuit(clock: Clock) -> None:
    guard = Guard("B", timeout_s=5)
    await open_circuit(guard)
    clock.forward(OPEN_S + 1)

    assert await guard.call(Asked(), retry=False) == "answer"
    assert await guard.call(Asked(), retry=False) == "answer"


@pytest.mark.parametrize(
    "error", [ToolError("bad query"), asyncio.CancelledError()], ids=["refusal", "cancelled"]
)
async def test_errors_of_the_request_do_not_open_the_circuit(
    error: BaseException,
) -> None:
    guard = Guard("B", timeout_s=5)
    raising: Callable[[], Awaitable[str]] = Asked(*[error] * 20)
    for _ in range(20):
        with pytest.raises(type(error)):
            await guard.call(raising, retry=False)

    assert await guard.call(raising, retry=False) == "answer"


class TestHalfOpen:
    """The call that is let through in the half open state."""

    @pytest.fixture
    async def guard(self, clock: Clock) -> Guard:
        guard = Guard("B", timeout_s=5)
        await open_circuit(guard)
        clock.forward(OPEN_S + 1)
        return guard

    async def test_the_other_calls_wait_for_the_result_of_the_trial(self, guard: Guard) -> None:
        trial, asked = Trial(), Asked()
        begun = asyncio.create_task(guard.call(trial, retry=True))
        await trial.begun.wait()
        others = [asyncio.create_task(guard.call(asked, retry=False)) for _ in range(29)]
        await asyncio.sleep(0.05)
        meanwhile = asked.times

        trial.answers.set_result("answer")

        assert await begun == "answer"
        assert await asyncio.gather(*others) == ["answer"] * 29
        assert (meanwhile, asked.times) == (0, 29)

    async def test_a_failed_trial_refuses_the_waiting_calls(self, guard: Guard) -> None:
        trial, asked = Trial(), Asked()
        begun = asyncio.create_task(guard.call(trial, retry=False))
        await trial.begun.wait()
        others = [asyncio.create_task(guard.call(asked, retry=True)) for _ in range(29)]
        await asyncio.sleep(0.01)

        trial.answers.set_exception(lost())

        with pytest.raises(OutcomeUnknown):
            await begun
        for error in await asyncio.gather(*others, return_exceptions=True):
            assert isinstance(error, BackendUnavailable)
            assert "next attempt in" in str(error)
        assert asked.times == 0

    async def test_a_waiting_call_is_refused_at_its_deadline(self, guard: Guard) -> None:
        trial = Trial()
        begun = asyncio.create_task(guard.call(trial, retry=True))
        await trial.begun.wait()

        with pytest.raises(BackendUnavailable, match="a trial call is in progress"):
            async with deadline(0.5):
                await guard.call(Asked(), retry=True)

        trial.answers.set_result("answer")
        assert await begun == "answer"

    async def test_two_concurrent_calls_of_one_tool_both_succeed(self, guard: Guard) -> None:
        """Were the second refused, gather_or_cancel would cancel the trial, again and again."""

        async def slowly() -> str:
            await asyncio.sleep(0.05)
            return "answer"

        heard = await gather_or_cancel(
            guard.call(slowly, retry=True), guard.call(slowly, retry=True)
        )

        assert heard == ("answer", "answer")

    async def test_a_stream_is_no_trial(self, guard: Guard) -> None:
        trial = Trial()
        begun = asyncio.create_task(guard.call(trial, retry=True, streaming=True))
        await trial.begun.wait()

        assert await guard.call(Asked(), retry=True) == "answer"
        trial.answers.set_result("answer")
        assert await begun == "answer"

    async def test_a_failed_trial_opens_the_circuit_again(self, guard: Guard, clock: Clock) -> None:
        with pytest.raises(OutcomeUnknown):
            await guard.call(Asked(lost()), retry=False)
        with pytest.raises(BackendUnavailable, match="next attempt in"):
            await guard.call(Asked(), retry=True)
        clock.forward(OPEN_S + 1)

        assert await guard.call(Asked(), retry=True) == "answer"

    async def test_after_a_cancelled_trial_the_next_call_is_the_trial(self, guard: Guard) -> None:
        trial, next_one = Trial(), Trial()
        gone = asyncio.create_task(guard.call(trial, retry=True))
        await trial.begun.wait()
        gone.cancel()
        await asyncio.wait([gone])
        begun = asyncio.create_task(guard.call(next_one, retry=True))
        await next_one.begun.wait()

        asked = Asked()
        other = asyncio.create_task(guard.call(asked, retry=True))
        await asyncio.sleep(0.01)
        meanwhile = asked.times
        next_one.answers.set_result("answer")

        assert (await begun, await other, meanwhile) == ("answer", "answer", 0)

    async def test_after_a_trial_without_time_the_next_call_is_the_trial(
        self, guard: Guard
    ) -> None:
        with pytest.raises(ToolError, match="no time left"):
            async with deadline(0.3):
                await guard.call(forever, retry=True)

        assert await guard.call(Asked(), retry=True) == "answer"


class Trial:
    """A request that lasts until the test sets its answer."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.answers: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.begun.set()
        return await self.answers
