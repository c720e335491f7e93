"""Rows of the audit log as lines: what a terminal, a spreadsheet and a SIEM get."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import pytest

from mcp_server.audit.formats import FORMATS
from mcp_server.audit.ocsf import ocsf_event
from mcp_server.audit.record import COLUMNS

_ROW: dict[str, Any] = {
    **dict.fromkeys(COLUMNS),
    "time": datetime(2026, 11, 30, 8, 0, 0, 123456, tzinfo=UTC),
    "event_id": UUID(int=7),
    "request_id": "r1",
    "phase": "outcome",
    "node": "mcp1",
    "transport": "mcp",
    "method": "tools/call",
    "user_id": "alice",
    "tenant": "acme",
    "tool": "k8s:get_pods",
    "arguments": {"namespace": "staging"},
    "client_ip": ip_address("2001:db8::1"),
    "user_agent": "agent/1",
    "effect": "allow",
    "reasons": [],
    "policy_revision": "abc",
    "duration_ms": 12.4,
    "outcome": "ok",
}
_DENIED = {
    "effect": "deny",
    "outcome": "denied",
    "reasons": [{"code": "not_available", "message": "there is no such tool"}],
}
# OCSF 1.3.0: the required attributes of the base event and of the two classes.
_REQUIRED = {
    "activity_id",
    "category_uid",
    "class_uid",
    "metadata",
    "severity_id",
    "time",
    "type_uid",
}
_REQUIRED_OF = {6003: {"actor", "api", "src_endpoint"}, 3002: {"user", "service"}}


def _row(**changes: Any) -> dict[str, Any]:
    return _ROW | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        _DENIED,
        {"phase": "intent", "outcome": None},
        {"method": "sign_in", "tool": None},
        {"method": "sign_in", "tool": None, "user_id": None, "client_ip": None, **_DENIED},
        {"user_id": None, "tenant": None, "tool": None, "effect": None, "user_agent": None},
    ],
    ids=["allowed", "denied", "intent", "sign-in", "refused sign-in", "nothing known"],
)
def test_an_event_has_what_its_class_requires(changes: dict[str, Any]) -> None:
    event = ocsf_event(_row(**changes))

    assert set(event) >= _REQUIRED | _REQUIRED_OF[event["class_uid"]]
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["category_uid"] == event["class_uid"] // 1000
    assert event["time"] == 1_796_025_600_123
    assert set(event["metadata"]) >= {"version", "product"}
    assert event["metadata"]["product"]["vendor_name"]
    assert event["status_id"] in (1, 2, 99)
    if event["class_uid"] == 6003:
        assert event["api"]["operation"]
        assert event["actor"]["user"]["name"]
        assert event["src_endpoint"]


def test_an_event_says_who_did_what_from_where_and_how_it_ended() -> None:
    event = ocsf_event(_row(**_DENIED))

    assert event["class_uid"] == 6003
    assert event["actor"]["user"] == {
        "uid": "alice",
        "name": "alice",
        "org": {"uid": "acme", "name": "acme"},
    }
    assert event["api"]["operation"] == "k8s:get_pods"
    assert event["src_endpoint"] == {"ip": "2001:db8::1"}
    assert (event["status"], event["status_code"]) == ("Failure", "denied")
    assert event["status_detail"] == "there is no such tool"
    assert event["action_id"] == 2
    assert event["metadata"]["correlation_uid"] == "r1"
    assert event["unmapped"]["arguments"] == {"namespace": "staging"}


def test_an_intent_is_a_change_whose_status_is_open() -> None:
    event = ocsf_event(_row(phase="intent", outcome=None))

    assert event["activity_id"] == 3
    assert (event["status_id"], event["status_code"]) == (99, "intent")


def test_a_table_shows_control_characters_and_does_not_send_them() -> None:
    line = FORMATS["table"].line(_row(user_id="\x1b[2Jbob", tool="\x9b31m"))

    assert line.isprintable()
    assert "\\u001b[2Jbob" in line


@pytest.mark.parametrize("output", ["json", "ocsf"])
def test_json_lines_are_ascii(output: str) -> None:
    line = FORMATS[output].line(_row(user_id="\x9bä"))

    assert line.isascii()
    assert "\n" not in line
    assert "\x9bä" in json.dumps(json.loads(line), ensure_ascii=False)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum(a1)", "\t=1"])
def test_a_spreadsheet_runs_no_cell_as_a_formula(text: str) -> None:
    (cells,) = csv.reader([FORMATS["csv"].line(_row(user_id=text))])

    assert cells[list(COLUMNS).index("user_id")] == "'" + text


def test_a_line_of_csv_has_the_columns_of_the_header() -> None:
    header = FORMATS["csv"].header
    assert header is not None
    (line,) = csv.DictReader([header, FORMATS["csv"].line(_ROW)])

    assert line["time"] == "2026-11-30T08:00:00.123456Z"
    assert json.loads(line["arguments"]) == {"namespace": "staging"}
    assert line["client_ip"] == "2001:db8::1"
