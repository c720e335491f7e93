"""One table of errors for all transports."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mcp_server.gate import Limited, Refused
from mcp_server.gate.errors import (
    audit_unavailable,
    counters_unavailable,
    not_available,
    outcome_not_recorded,
    policy_unavailable,
)
from mcp_server.policy import Authorization, PolicyUnavailable, PolicyUndecided
from mcp_server.transports import errors
from mcp_server.transports.errors import ERRORS, Rejection, error_data, kind_of, refusal_details

_NGINX = Path(__file__).resolve().parents[2] / "roles" / "nginx" / "vars" / "main.yml"
_LIMITED = Limited(
    Authorization(
        version=2,
        revision="r1",
        effect="limited",
        reasons=[],
        charges=[],
        obligations=[],
        retry_after_ms=5,
        quota=[],
    )
)


@pytest.mark.parametrize(
    ("refusal", "code", "status", "number"),
    [
        (not_available(), "forbidden", 403, -32010),
        (policy_unavailable(PolicyUndecided("x")), "forbidden", 403, -32010),
        (_LIMITED, "rate_limited", 429, -32011),
        (policy_unavailable(PolicyUnavailable("x")), "unavailable", 503, -32012),
        (counters_unavailable(), "unavailable", 502, -32012),
        (audit_unavailable(), "unavailable", 502, -32012),
        (outcome_not_recorded(), "outcome_not_recorded", 502, -32012),
    ],
)
def test_every_refusal_of_the_gate_has_its_row(
    refusal: Refused, code: str, status: int, number: int
) -> None:
    kind = kind_of(refusal)

    assert (kind.code, kind.status, kind.number) == (code, status, number)
    assert kind.retryable is refusal.retryable is refusal_details(refusal)["retryable"]


def test_each_row_is_there_once() -> None:
    rows = [(kind.code, kind.status, kind.number) for kind in ERRORS]

    assert len(set(rows)) == len(rows)


def test_what_is_said_of_a_number_alone_is_what_its_row_says() -> None:
    for kind in (errors.FORBIDDEN, errors.RATE_LIMITED, errors.UNAVAILABLE, errors.INTERNAL_ERROR):
        data = error_data(kind.number, "r")
        assert (data["code"], data["retryable"]) == (kind.code, kind.retryable)


def test_a_rejection_has_the_same_row_over_both_transports() -> None:
    rejection = Rejection(errors.DRAINING, "stopping", retry_after_s=1)

    mcp, rest = rejection.response("mcp", "r"), rejection.response("rest", "r")

    assert mcp.status_code == rest.status_code == 503
    assert mcp.headers["retry-after"] == rest.headers["retry-after"] == "1"
    assert b'"code":"draining"' in mcp.body
    assert b'"code":"draining"' in rest.body


def test_nginx_sends_the_numbers_of_the_table() -> None:
    sent = {
        error["number"]
        for error in yaml.safe_load(_NGINX.read_text())["__nginx_errors"]
        if "number" in error
    }

    assert sent <= {kind.number for kind in ERRORS}
