"""Questions that gather: everybody gets their own answer, and nobody another's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from mcp_server.policy.batches import Batches

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Oracle:
    """Answers a question with itself, and keeps what it was asked."""

    def __init__(self) -> None:
        self.queries: list[int] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def one(self, document: dict[str, Any]) -> Any:
        self.queries.append(1)
        await asyncio.sleep(0.01)
        await self.answering.wait()
        if document.get("hangs"):
            await asyncio.Event().wait()
        if document.get("bad"):
            raise ValueError(document["bad"])
        return {"result": document}

    async def many(self, queries: Sequence[dict[str, Any]]) -> list[Any]:
        self.queries.append(len(queries))
        await asyncio.sleep(0.01)
        await self.answering.wait()
        if any(each.get("bad") or each.get("hangs") for each in queries):
            raise ValueError("one bad question spoils the query")
        return [None if each.get("undefined") else {"result": each} for each in queries]


async def test_one_caller_is_served_alone() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    for number in range(3):
        assert await batches.ask({"n": number}) == {"result": {"n": number}}

    assert oracle.queries == [1, 1, 1]


async def test_many_callers_share_queries_and_get_their_own_answers() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    answers = await asyncio.gather(*(batches.ask({"n": n}) for n in range(80)))

    assert answers == [{"result": {"n": n}} for n in range(80)]
    assert len(oracle.queries) == 4
    assert max(oracle.queries) == 32


async def test_a_question_that_follows_an_answer_at_once_does_not_wait_for_another() -> None:
    """The query that brought the answer is on its way out just then, and takes nothing more."""
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    async def twice(number: int) -> list[Any]:
        return [await batches.ask({"n": number, "turn": turn}) for turn in (1, 2)]

    answers = await asyncio.wait_for(asyncio.gather(*(twice(n) for n in range(3))), timeout=60)

    assert answers == [[{"result": {"n": n, "turn": turn}} for turn in (1, 2)] for n in range(3)]


async def test_a_question_that_fails_fails_alone() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    answers = await asyncio.gather(
        *(batches.ask({"n": n, "bad": "mine" if n == 5 else ""}) for n in range(10)),
        return_exceptions=True,
    )

    assert [isinstance(answer, ValueError) for answer in answers] == [n == 5 for n in range(10)]
    assert str(answers[5]) == "mine"


async def test_an_undefined_answer_is_asked_for_alone() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    answers = await asyncio.gather(*(batches.ask({"n": n, "undefined": n == 4}) for n in range(6)))

    assert [answer["result"]["n"] for answer in answers] == list(range(6))


async def test_a_caller_that_gives_up_leaves_the_others_their_answers() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)
    tasks = [asyncio.create_task(batches.ask({"n": n})) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[1:20:2]:
        task.cancel()

    kept = await asyncio.gather(*tasks[::2])

    assert [answer["result"]["n"] for answer in kept] == list(range(0, 20, 2))
    assert await batches.ask({"n": 99}) == {"result": {"n": 99}}


async def test_nobody_asks_for_a_caller_that_gave_up_during_a_query_that_failed() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)
    first = asyncio.create_task(batches.ask({"n": 0}))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(batches.ask({"n": n, "bad": "x"})) for n in range(32)]
    await first
    await asyncio.sleep(0)
    assert oracle.queries == [1, 32]
    for task in tasks[1:]:
        task.cancel()

    with pytest.raises(ValueError, match="x"):
        await tasks[0]

    assert oracle.queries == [1, 32, 1]


async def test_one_bad_question_costs_its_neighbours_one_more_query_of_their_own() -> None:
    """They are asked at the same time: a line of them would take as long as all together."""
    oracle = Oracle()
    running = most = 0

    async def one(document: dict[str, Any]) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await oracle.one(document)
        finally:
            running -= 1

    batches = Batches(one, oracle.many)

    await asyncio.gather(
        *(batches.ask({"n": n, "bad": "x" if n == 5 else ""}) for n in range(33)),
        return_exceptions=True,
    )

    assert oracle.queries == [1, 32, *[1] * 32]
    assert most == 32


async def test_a_question_that_hangs_holds_up_nobody_who_comes_later() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)
    tasks = [asyncio.create_task(batches.ask({"n": n, "hangs": n in (3, 4)})) for n in range(6)]
    await asyncio.wait([*tasks[:3], tasks[5]], timeout=60)
    hanging = {task for task in tasks if not task.done()}

    later = await asyncio.wait_for(
        asyncio.gather(*(batches.ask({"n": n}) for n in range(40))), timeout=60
    )

    assert hanging == set(tasks[3:5])
    assert later == [{"result": {"n": n}} for n in range(40)]
    for task in hanging:
        task.cancel()


async def test_after_opa_did_not_answer_the_next_question_is_answered_at_once() -> None:
    oracle = Oracle()
    failed = asyncio.Event()

    async def many(questions: Sequence[dict[str, Any]]) -> Any:
        try:
            async with asyncio.timeout(0.1):
                return await oracle.many(questions)
        finally:
            failed.set()

    batches = Batches(oracle.one, many)

    async def impatient(number: int, patience_s: float) -> Any:
        async with asyncio.timeout(patience_s):
            return await batches.ask({"n": number})

    oracle.answering.clear()
    refused = await asyncio.gather(
        impatient(0, 0.02), *(impatient(n, 0.06) for n in range(1, 33)), return_exceptions=True
    )
    await asyncio.wait_for(failed.wait(), timeout=60)
    await asyncio.sleep(0.01)
    oracle.answering.set()
    answer = await batches.ask({"n": 99})

    assert all(isinstance(refusal, TimeoutError) for refusal in refused)
    assert answer == {"result": {"n": 99}}
    assert oracle.queries == [1, 32, 1]
