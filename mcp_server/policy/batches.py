"""Questions that wait at the same time go to OPA in one query.

A single caller's question goes out at once and alone. While a query is on its way, further
questions gather, and the next query takes up to 32 of them: the cost of a round trip is shared
where it matters, under load, and nothing waits on purpose. One query at a time and large batches
gave more calls a second than several smaller ones (docs/performance.md).

Where a query brings no answer, each of its callers asks alone, in its own time and within its own
deadline: who gave up asks nothing, and nobody who came later waits for them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Batches", "Question"]

_AT_ONCE = 32
_ASK_ALONE = object()
"""Put into a question's future instead of an answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """One entry point with its input; the answer, or why there is none, is put into the future."""

    entry: str
    document: dict[str, Any]
    answer: asyncio.Future[Any]


class Batches:
    """Gathers questions.

    Args:
        ask_one: asks OPA one question and returns the body of its answer.
        ask_many: asks several at once and returns the body of the answer.
    """

    def __init__(
        self,
        ask_one: Callable[[str, dict[str, Any]], Awaitable[Any]],
        ask_many: Callable[[dict[str, Any]], Awaitable[Any]],
    ) -> None:
        self._ask_one = ask_one
        self._ask_many = ask_many
        self._waiting: deque[Question] = deque()
        self._senders: set[asyncio.Task[None]] = set()

    async def ask(self, entry: str, document: dict[str, Any]) -> Any:
        """Return the body that OPA would answer to this question alone.

        Raises:
            Whatever `ask_one` raises.
        """
        if not self._senders:
            # Nobody else asks: no task, no gathering.
            task = asyncio.current_task()
            if task is not None:
                return await self._alone(task, entry, document)
        question = Question(entry, document, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        if not self._senders:
            self._start()
        answer = await question.answer
        return await self._ask_one(entry, document) if answer is _ASK_ALONE else answer

    async def _alone(self, task: asyncio.Task[Any], entry: str, document: dict[str, Any]) -> Any:
        self._senders.add(task)
        try:
            return await self._ask_one(entry, document)
        finally:
            self._ended(task)

    def _start(self) -> None:
        sender = asyncio.create_task(self._send(), name="policy-questions")
        self._senders.add(sender)
        sender.add_done_callback(self._ended)

    def _ended(self, sender: asyncio.Task[Any]) -> None:
        self._senders.discard(sender)
        # Who asked after the sender's last look at the waiting saw that it was still there.
        if self._waiting and not self._senders:
            self._start()

    async def _send(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            # A caller that gave up meanwhile needs no answer.
            batch = [question for question in batch if not question.answer.done()]
            if len(batch) == 1:
                await self._singly(batch[0])
            elif batch:
                await self._together(batch)

    async def _together(self, batch: list[Question]) -> None:
        try:
            body = await self._ask_many(
                {
                    str(number): {"entry": question.entry, "input": question.document}
                    for number, question in enumerate(batch)
                }
            )
            answers = body["result"]
            found = [answers.get(str(number)) for number in range(len(batch))]
        except Exception:  # noqa: BLE001 # whatever it was, each question meets it alone and says so
            # One question that cannot be evaluated must not be a refusal of its neighbours. When OPA
            # does not answer at all, this ends after the deadlines of those who asked.
            found = [None] * len(batch)
        for question, answer in zip(batch, found, strict=True):
            if not question.answer.done():
                question.answer.set_result(_ASK_ALONE if answer is None else {"result": answer})

    async def _singly(self, question: Question) -> None:
        try:
            answer = await self._ask_one(question.entry, question.document)
        except Exception as error:  # noqa: BLE001 # it belongs to the one who asked
            if not question.answer.done():
                question.answer.set_exception(error)
        else:
            if not question.answer.done():
                question.answer.set_result(answer)
