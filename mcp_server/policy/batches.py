"""Batches: OPA evaluates queries that wait at the same time in one HTTP request.

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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Batches"]

_BATCH_SIZE = 32
_SEND_ALONE = object()
"""The result of a query's future when the caller has to send the query alone."""


@dataclass(frozen=True, slots=True)
class _Query:
    """An input. The future gets the answer, or the error."""

    policy_input: dict[str, Any]
    answer: asyncio.Future[Any]


class Batches:
    """Gathers queries.

    Args:
        ask_one: sends OPA one query and returns the body of the response.
        ask_many: sends several queries in one request and returns the body of the response.
    """

    def __init__(
        self,
        ask_one: Callable[[dict[str, Any]], Awaitable[Any]],
        ask_many: Callable[[dict[str, Any]], Awaitable[Any]],
    ) -> None:
        self._ask_one = ask_one
        self._ask_many = ask_many
        self._waiting: deque[_Query] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def ask(self, policy_input: dict[str, Any]) -> Any:
        """Return the body that OPA responds with to this query alone.

        Raises:
            Whatever `ask_one` raises.
        """
        if not self._senders:
            # No other query is in flight: no task and no batch is needed.
            task = asyncio.current_task()
            if task is not None:
                return await self._alone(task, policy_input)
        query = _Query(policy_input, asyncio.get_running_loop().create_future())
        self._waiting.append(query)
        if not self._senders:
            self._start()
        answer = await query.answer
        return await self._ask_one(policy_input) if answer is _SEND_ALONE else answer

    async def _alone(self, task: asyncio.Task[Any], policy_input: dict[str, Any]) -> Any:
        self._senders.add(task)
        try:
            return await self._ask_one(policy_input)
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
            batch = [query for query in batch if not query.answer.done()]
            if len(batch) == 1:
                await self._send_one(batch[0])
            elif batch:
                await self._send_batch(batch)

    async def _send_batch(self, batch: list[_Query]) -> None:
        try:
            body = await self._ask_many(
                {str(number): query.policy_input for number, query in enumerate(batch)}
            )
            answers = body["result"]
            found = [answers.get(str(number)) for number in range(len(batch))]
        except Exception:  # noqa: BLE001 - each query meets the error alone and reports it
            # A query that cannot be evaluated must not refuse its neighbours. When OPA does not answer
            # at all, the deadlines of the callers end this.
            found = [None] * len(batch)
        for query, answer in zip(batch, found, strict=True):
            if not query.answer.done():
                query.answer.set_result(_SEND_ALONE if answer is None else {"result": answer})

    async def _send_one(self, query: _Query) -> None:
        try:
            answer = await self._ask_one(query.policy_input)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            if not query.answer.done():
                query.answer.set_exception(error)
        else:
            if not query.answer.done():
                query.answer.set_result(answer)
