"""The charges that are predicted for a call: by shape, for one revision, in bounded memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mcp_server.gate import predictions
from mcp_server.gate.predictions import Predictions
from mcp_server.policy import (
    Action,
    Authorization,
    ClientInfo,
    Context,
    DecisionInput,
    Resource,
    SubjectInput,
)

_CHARGE = {"id": "user", "key": "user:t:a", "limit": 5, "window_s": 60, "cost": 1}

_SUBJECT = SubjectInput("a", "t", ("r",), ("g",), (), "token-1", "i", "c", "")


def _input(**changes: Any) -> DecisionInput:
    context = Context("192.0.2.1", "2026-01-07T12:00:00Z", "n", "r-1", "mcp", "up", "up")
    asked = DecisionInput(_SUBJECT, Action("tools/call"), Resource("tool", "x"), context)
    return dataclasses.replace(asked, **changes)


def _answer(effect: str = "allow", revision: str = "r1") -> Authorization:
    return Authorization.model_validate(
        {
            "version": 2,
            "revision": revision,
            "effect": effect,
            "reasons": [],
            "charges": [_CHARGE] if effect == "allow" else [],
            "obligations": [],
            "retry_after_ms": 0,
            "quota": [],
        }
    )


def _learned() -> Predictions:
    known = Predictions()
    known.learn(_input(), _answer())
    return known


def test_an_allowed_call_predicts_the_next_one_of_its_shape() -> None:
    later = dataclasses.replace(_input().context, request_id="r-2", time="2026-01-07T12:01:00Z")
    again = _input(
        context=later,
        subject=dataclasses.replace(_input().subject, token_id="token-2"),
        action=Action("tools/call", {"limit": 5}),
    )

    assert [charge.id for charge in _learned().of(again, "r1")] == ["user"]


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": dataclasses.replace(_SUBJECT, id="b")},
        {"subject": dataclasses.replace(_SUBJECT, tenant="u")},
        {"subject": dataclasses.replace(_SUBJECT, roles=())},
        {"subject": dataclasses.replace(_SUBJECT, groups=())},
        {"subject": dataclasses.replace(_SUBJECT, scopes=("s",))},
        {"subject": dataclasses.replace(_SUBJECT, issuer="j")},
        {"subject": dataclasses.replace(_SUBJECT, client_id="d")},
        {"subject": dataclasses.replace(_SUBJECT, actor="bot")},
        {"client_info": ClientInfo("other", "1")},
        {"action": Action("resources/read")},
        {"resource": Resource("tool", "y")},
        {"resource": Resource("prompt", "x")},
    ],
)
def test_a_call_of_another_shape_has_no_prediction(changes: dict[str, Any]) -> None:
    assert _learned().of(_input(**changes), "r1") == ()


def test_another_revision_has_no_prediction() -> None:
    assert _learned().of(_input(), "r2") == ()


def test_nothing_is_predicted_while_the_counters_are_down() -> None:
    down = dataclasses.replace(_input().context, counters="down")
    assert _learned().of(_input(context=down), "r1") == ()


@pytest.mark.parametrize("effect", ["deny", "limited", "approval_required"])
def test_a_refused_call_is_forgotten(effect: str) -> None:
    known = _learned()
    known.learn(_input(), _answer(effect))
    assert known.of(_input(), "r1") == ()


def test_the_least_recently_used_shapes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "_SIZE", 2)
    known = Predictions()
    shapes = [_input(resource=Resource("tool", name)) for name in "xyz"]
    known.learn(shapes[0], _answer())
    known.learn(shapes[1], _answer())
    known.of(shapes[0], "r1")
    known.learn(shapes[2], _answer())

    assert [bool(known.of(shape, "r1")) for shape in shapes] == [True, False, True]
