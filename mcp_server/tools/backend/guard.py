"""Deadline, retry, concurrency limit and circuit breaker around the calls to one backend."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import aiohttp

from mcp_server.infrastructure.telemetry import tracing
from mcp_server.tools.backend.circuit import CircuitBreaker
from mcp_server.tools.backend.errors import (
    NOT_SENT,
    BackendBusy,
    BackendUnavailable,
    CircuitOpen,
    OutcomeUnknown,
    ResponseTooLarge,
    TimeExhausted,
    describe_missing_response,
    describe_outage,
)
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.deadline import remaining

__all__ = ["Guard"]

_RETRY_PAUSE_S = 0.1
# More concurrent calls would only wait inside the backend.
_MAX_CONCURRENT = 32
_QUEUE_S = 1.0
# A backend that got less time than this, because the tool had no more, is not blamed for its silence.
_MIN_FAIR_S = 0.5

_T = TypeVar("_T")


class Guard:
    """Keeps the trouble of one backend from becoming trouble of this server.

    Args:
        name: name of the backend in error messages, such as `Prometheus`.
        timeout_s: deadline of one call in seconds, retries included. A tool with less time left
            shortens it (`mcp_server.tools.deadline`).
        max_concurrent: maximum concurrent calls. A call waits up to a second for a free slot and is
            refused then; that does not count as a failure of the backend.
    """

    def __init__(
        self, name: str, *, timeout_s: float, max_concurrent: int = _MAX_CONCURRENT
    ) -> None:
        self.name = name
        self._timeout_s = timeout_s
        self._max_concurrent = max_concurrent
        self._slots = asyncio.Semaphore(max_concurrent)
        self._circuit = CircuitBreaker(name, wait_s=timeout_s)

    @property
    def connect_s(self) -> float:
        """Seconds for the connection of a call that begins now.

        Less than the deadline of the call: a call that reaches its deadline has sent its request.
        """
        return self.remaining_s / 2

    @property
    def remaining_s(self) -> float:
        """Seconds for a call that begins now.

        They end before the deadline of the tool, so that the tool can report what did not answer.
        """
        return remaining(self._timeout_s)

    def require_remaining_s(self) -> float:
        """Return `remaining_s`.

        Raises:
            TimeExhausted: too little to begin a call that needs a response.
        """
        if not self._is_fair(remaining_s := self.remaining_s):
            raise TimeExhausted(self.name)
        return remaining_s

    def protect(self, *, exclusive: bool = True) -> AbstractAsyncContextManager[None]:
        """Run a block that has its own deadline and errors; see `CircuitBreaker.protect`."""
        return self._circuit.protect(exclusive=exclusive)

    async def call(
        self,
        request: Callable[[], Awaitable[_T]],
        *,
        retry: bool,
        verify_hint: str = "read the current state",
        streaming: bool = False,
    ) -> _T:
        """Return the result of `request`.

        Args:
            request: makes one attempt. It must give up connecting after `connect_s`.
            retry: call `request` once more after a failed connection; only for reads.
            verify_hint: how a caller finds out whether a change without a response was made.
            streaming: the response is a long stream, such as a watch: it takes no slot.

        Raises:
            BackendUnavailable: no response in time, no connection, or the circuit is open. A change was
                not made.
            OutcomeUnknown: a change was sent and its result is unknown.
            BackendBusy, TimeExhausted: no free slot, or too little time. Nothing was sent.
        """
        if streaming:
            return await self._protected(
                request, retry=retry, verify_hint=verify_hint, exclusive=False
            )
        await self._take_slot()
        try:
            return await self._protected(
                request, retry=retry, verify_hint=verify_hint, exclusive=True
            )
        finally:
            self._slots.release()

    async def _take_slot(self) -> None:
        try:
            async with asyncio.timeout(remaining(_QUEUE_S)):
                await self._slots.acquire()
        except TimeoutError:
            raise BackendBusy(self.name, self._max_concurrent) from None

    async def _protected(
        self,
        request: Callable[[], Awaitable[_T]],
        *,
        retry: bool,
        verify_hint: str,
        exclusive: bool,
    ) -> _T:
        timeout_s = self.remaining_s
        try:
            async with self._circuit.protect(exclusive=exclusive):
                timeout_s = self.remaining_s if retry else self.require_remaining_s()
                try:
                    with tracing.span("backend", {"peer.service": self.name}):
                        async with asyncio.timeout(timeout_s):
                            return await _attempt(request, retry=retry)
                except TimeoutError as error:
                    if self._is_fair(timeout_s):
                        raise
                    raise TimeExhausted(self.name) from error
        except CircuitOpen:
            raise
        except (aiohttp.ClientError, OSError, BackendUnavailable, ResponseTooLarge) as error:
            if not retry and not isinstance(error, NOT_SENT):
                raise OutcomeUnknown(
                    self.name, describe_missing_response(error, timeout_s), verify_hint=verify_hint
                ) from error
            if isinstance(error, ToolError):
                raise
            raise BackendUnavailable(self.name, describe_outage(error, timeout_s)) from error

    def _is_fair(self, timeout_s: float) -> bool:
        return timeout_s >= min(self._timeout_s, _MIN_FAIR_S)


async def _attempt(request: Callable[[], Awaitable[_T]], *, retry: bool) -> _T:
    try:
        return await request()
    except aiohttp.ClientConnectionError:
        if not retry:
            raise
    # Callers that lost their connections at the same time do not come back at the same time.
    await asyncio.sleep(random.uniform(0, _RETRY_PAUSE_S))  # noqa: S311 - a pause, not a secret
    return await request()
