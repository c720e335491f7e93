"""Questions that gather: everybody gets their own answer, and nobody another's failure."""

from __future__ import annotations

import asyncio
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
        self.broken = False

    async def one(self, entry: str, document: dict[str, Any]) -> Any:
        self.queries.append(1)
        await asyncio.sleep(0.01)
        if document.get("bad"):
            raise ValueError(document["bad"])
        return {"result": [entry, document]}

    async def many(self, questions: dict[str, Any]) -> Any:
        self.queries.append(len(questions))
        await asyncio.sleep(0.01)
        if any(question["input"].get("bad") for question in questions.values()):
            raise ValueError("one bad question spoils the query")
        return {
            "result": {
                number: [question["entry"], question["input"]]
                for number, question in questions.items()
                if not question["input"].get("undefined")
            }
        }


async def test_one_caller_is_served_alone() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    for number in range(3):
        assert await batches.ask("decide", {"n": number}) == {"result": ["decide", {"n": number}]}

    assert oracle.queries == [1, 1, 1]


async def test_many_callers_share_queries_and_get_their_own_answers() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    answers = await asyncio.gather(*(batches.ask("decide", {"n": n}) for n in range(80)))

    assert answers == [{"result": ["decide", {"n": n}]} for n in range(80)]
    assert len(oracle.queries) == 4
    assert max(oracle.queries) == 32


async def test_a_question_that_follows_an_answer_at_once_does_not_wait_for_another() -> None:
    """The query that brought the answer is on its way out just then, and takes nothing more."""
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    async def twice(number: int) -> list[Any]:
        return [await batches.ask(entry, {"n": number}) for entry in ("decide", "visible")]

    answers = await asyncio.wait_for(asyncio.gather(*(twice(n) for n in range(3))), timeout=5)

    assert answers == [
        [{"result": ["decide", {"n": n}]}, {"result": ["visible", {"n": n}]}] for n in range(3)
    ]


async def test_a_question_that_fails_fails_alone() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    answers = await asyncio.gather(
        *(batches.ask("decide", {"n": n, "bad": "mine" if n == 5 else ""}) for n in range(10)),
        return_exceptions=True,
    )

    assert [isinstance(answer, ValueError) for answer in answers] == [n == 5 for n in range(10)]
    assert str(answers[5]) == "mine"


async def test_an_undefined_answer_is_asked_for_alone() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)

    answers = await asyncio.gather(
        *(batches.ask("admit", {"n": n, "undefined": n == 4}) for n in range(6))
    )

    assert [answer["result"][1]["n"] for answer in answers] == list(range(6))


async def test_a_caller_that_gives_up_leaves_the_others_their_answers() -> None:
    oracle = Oracle()
    batches = Batches(oracle.one, oracle.many)
    tasks = [asyncio.create_task(batches.ask("decide", {"n": n})) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[1:20:2]:
        task.cancel()

    kept = await asyncio.gather(*tasks[::2])

    assert [answer["result"][1]["n"] for answer in kept] == list(range(0, 20, 2))
    assert await batches.ask("decide", {"n": 99}) == {"result": ["decide", {"n": 99}]}
