"""What a subject can see is cached for exactly that subject."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mcp_server.policy import (
    Action,
    ClientInfo,
    Context,
    DecisionInput,
    PolicyEngine,
    Resource,
    SubjectInput,
)
from mcp_server.settings import PolicySettings

pytestmark = pytest.mark.anyio

_SUBJECT = SubjectInput("a", "t", ("r",), ("g",), ("s",), "j", "i", "c", "b", ("10.0.0.0/8",))
_CONTEXT = Context("192.0.2.1", "2026-01-07T12:00:00Z", "n", "r", "mcp", "up", "up")
_INPUT = DecisionInput(_SUBJECT, Action("tools/list"), Resource("server", "x"), _CONTEXT)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> tuple[PolicyEngine, list[str]]:
    """A policy engine whose OPA is counted."""
    engine, asked = PolicyEngine(PolicySettings()), list[str]()

    async def query(entry: str, _: dict[str, Any]) -> Any:
        asked.append(entry)
        lists: dict[str, list[str]] = {"tools": [], "resources": [], "prompts": []}
        return {"result": {"version": 2, "revision": "r1", **lists}}

    monkeypatch.setattr(engine, "_query", query)
    return engine, asked


async def test_the_same_subject_is_asked_about_once(
    engine: tuple[PolicyEngine, list[str]],
) -> None:
    policy, asked = engine
    for token in ("j", "another token"):
        subject = dataclasses.replace(_SUBJECT, token_id=token)
        await policy.visible(dataclasses.replace(_INPUT, subject=subject))

    assert asked == ["visible"]


@pytest.mark.parametrize(
    "field", [each.name for each in dataclasses.fields(SubjectInput) if each.name != "token_id"]
)
async def test_a_subject_that_differs_in_anything_is_asked_about_again(
    engine: tuple[PolicyEngine, list[str]], field: str
) -> None:
    policy, asked = engine
    await policy.visible(_INPUT)
    other: Any = "z" if isinstance(getattr(_SUBJECT, field), str) else ("z",)

    await policy.visible(
        dataclasses.replace(_INPUT, subject=dataclasses.replace(_SUBJECT, **{field: other}))
    )

    assert asked == ["visible", "visible"]


@pytest.mark.parametrize("client", [ClientInfo("chat"), ClientInfo(version="2")], ids=str)
async def test_another_client_program_is_asked_about_again(
    engine: tuple[PolicyEngine, list[str]], client: ClientInfo
) -> None:
    policy, asked = engine
    await policy.visible(_INPUT)

    await policy.visible(dataclasses.replace(_INPUT, client_info=client))

    assert asked == ["visible", "visible"]
