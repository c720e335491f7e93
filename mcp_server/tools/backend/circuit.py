"""Circuit breaker: calls to a backend that keeps failing are refused for a while.

See https://learn.microsoft.com/azure/architecture/patterns/circuit-breaker.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp_server.tools.backend.errors import OUTAGES, CircuitOpen, TimeExhausted
from mcp_server.tools.deadline import remaining

__all__ = ["OPEN_S", "CircuitBreaker"]

_FAILURES_TO_OPEN = 5
OPEN_S = 15.0
"""Seconds for which an open circuit refuses calls."""


class CircuitBreaker:
    """The circuit breaker of one backend.

    - Closed: calls pass. Five failures in a row open the circuit.
    - Open: calls are refused for 15 seconds.
    - Half open, after that: one call passes, the trial; the others wait for its result. Success closes
      the circuit, failure opens it again. A trial that is cancelled shows neither: the next call is
      the trial then.

    Args:
        name: name of the backend in error messages.
        wait_s: maximum seconds for which a call waits for the result of the trial.
    """

    def __init__(self, name: str, *, wait_s: float) -> None:
        self._name = name
        self._wait_s = wait_s
        self._failures = 0
        self._opened_at: float | None = None
        self._trial_over = asyncio.Event()
        self._trial_over.set()

    @asynccontextmanager
    async def protect(self, *, exclusive: bool = True) -> AsyncIterator[None]:
        """Run a block that calls the backend, unless the circuit is open.

        Args:
            exclusive: in the half open state, run the block as the trial. A long stream is not: it
                would keep the other calls waiting.

        Raises:
            CircuitOpen: the circuit is open.
        """
        is_trial = await self._enter(exclusive=exclusive)
        try:
            yield
        except (asyncio.CancelledError, TimeExhausted):
            raise  # they show nothing about the backend
        except BaseException as error:
            self._record(failed=isinstance(error, OUTAGES))
            raise
        else:
            self._record(failed=False)
        finally:
            if is_trial:
                self._trial_over.set()

    async def _enter(self, *, exclusive: bool) -> bool:
        """Return whether the call is the trial."""
        while (open_s := self._remaining_open_s()) is not None:
            if open_s > 0:
                wait_s = max(1, math.ceil(open_s))
                raise CircuitOpen(self._name, f"recent calls failed; next attempt in {wait_s} s")
            if not exclusive:
                return False
            if self._trial_over.is_set():
                self._trial_over.clear()
                return True
            try:
                async with asyncio.timeout(remaining(self._wait_s)):
                    await self._trial_over.wait()
            except TimeoutError:
                raise CircuitOpen(
                    self._name, "recent calls failed; a trial call is in progress"
                ) from None
        return False

    def _remaining_open_s(self) -> float | None:
        """Return the seconds until the half open state; None if the circuit is closed."""
        return None if self._opened_at is None else self._opened_at + OPEN_S - time.monotonic()

    def _record(self, *, failed: bool) -> None:
        if (self._remaining_open_s() or 0) > 0:
            return  # a call that began before the circuit opened
        self._failures = self._failures + 1 if failed else 0
        self._opened_at = time.monotonic() if self._failures >= _FAILURES_TO_OPEN else None
