"""Batches: queries to OPA or Redis that wait at the same time go out in one request.

A single query is sent at once and alone. While a request is in flight, further queries gather, and the
next request carries up to 32 of them. So the cost of a round trip is shared under load, and no query
waits for a timer. One request at a time with large batches gave more calls a second than several
smaller ones (docs/performance.md).

If a batch gets no answer, each of its callers sends its query alone, within its own deadline. A caller
that gave up sends nothing, and later callers do not wait for these queries.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Batches"]

_BATCH_SIZE = 32
_SEND_ALONE: Any = object()
"""The result of a query's future when the caller has to send the query alone."""

_QueryT = TypeVar("_QueryT")
_AnswerT = TypeVar("_AnswerT")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[_QueryT, _AnswerT]):
    """A query. The future gets the answer, or the error."""

    query: _QueryT
    answer: asyncio.Future[_AnswerT]


class Batches(Generic[_QueryT, _AnswerT]):
    """Gathers queries.

    Args:
        ask_one: sends one query and returns its answer.
        ask_many: sends several queries in one request and returns an answer for each, in their order;
            None: this one has no answer in a batch.
    """

    def __init__(
        self,
        ask_one: Callable[[_QueryT], Awaitable[_AnswerT]],
        ask_many: Callable[[Sequence[_QueryT]], Awaitable[Sequence[_AnswerT | None]]],
    ) -> None:
        self._ask_one = ask_one
        self._ask_many = ask_many
        self._waiting: deque[_Waiting[_QueryT, _AnswerT]] = deque()
        self._senders: set[asyncio.Task[Any]] = set()

    async def ask(self, query: _QueryT) -> _AnswerT:
        """Return the answer to this query.

        Raises:
            Whatever `ask_one` raises.
        """
        if not self._senders:
            # No other query is in flight: no task and no batch is needed.
            task = asyncio.current_task()
            if task is not None:
                return await self._alone(task, query)
        waiting = _Waiting(query, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if not self._senders:
            self._start()
        answer = await waiting.answer
        return await self._ask_one(query) if answer is _SEND_ALONE else answer

    async def _alone(self, task: asyncio.Task[Any], query: _QueryT) -> _AnswerT:
        self._senders.add(task)
        try:
            return await self._ask_one(query)
        finally:
            self._ended(task)

    def _start(self) -> None:
        sender = asyncio.create_task(self._send(), name="policy-queries")
        self._senders.add(sender)
        sender.add_done_callback(self._ended)

    def _ended(self, sender: asyncio.Task[Any]) -> None:
        self._senders.discard(sender)
        # A query that arrived after the sender's last look was queued, because the sender still ran.
        if self._waiting and not self._senders:
            self._start()

    async def _send(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH_SIZE, len(self._waiting)))]
            # A caller that gave up meanwhile needs no answer.
            batch = [waiting for waiting in batch if not waiting.answer.done()]
            if len(batch) == 1:
                await self._send_one(batch[0])
            elif batch:
                await self._send_batch(batch)

    async def _send_batch(self, batch: list[_Waiting[_QueryT, _AnswerT]]) -> None:
        found: Sequence[_AnswerT | None]
        try:
            found = await self._ask_many([waiting.query for waiting in batch])
        except Exception:  # noqa: BLE001 - each query meets the error alone and reports it
            # A query that cannot be evaluated must not refuse its neighbours. Without any answer, the
            # deadlines of the callers end this.
            found = [None] * len(batch)
        for waiting, answer in zip(batch, found, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(_SEND_ALONE if answer is None else answer)

    async def _send_one(self, waiting: _Waiting[_QueryT, _AnswerT]) -> None:
        try:
            answer = await self._ask_one(waiting.query)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
        else:
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
