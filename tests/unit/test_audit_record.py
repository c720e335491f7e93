"""A record turns into a row of bounded texts without secrets."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from mcp_server.audit.record import COLUMNS, AuditReason, AuditRecord, Phase

_EVENT = UUID("12345678-1234-5678-1234-567812345678")


def _row(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "time": datetime(2026, 11, 23, tzinfo=UTC),
        "event_id": _EVENT,
        "request_id": "r-1",
        "phase": Phase.INTENT,
        "node": "mcp1",
        "transport": "mcp",
        "method": "tools/call",
    }
    return dict(zip(COLUMNS, AuditRecord(**(values | changes)).row(), strict=True))


def test_a_row_has_a_value_for_each_column() -> None:
    row = _row()

    assert row["phase"] == "intent"
    assert row["arguments"] == "{}"
    assert row["reasons"] == "[]"
    assert row["user_id"] is None


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        _row(time=datetime(2026, 11, 23))  # noqa: DTZ001 (that is the fault)


def test_texts_are_bounded_and_storable() -> None:
    row = _row(user_agent="x" * 5000, request_id="a\0b\ud800")

    assert len(row["user_agent"]) == 1024
    assert row["user_agent"].endswith("…")
    assert row["request_id"] == "a\ufffdb\ufffd"


def test_secrets_in_texts_are_redacted() -> None:
    row = _row(user_agent="agent Bearer abcdefghi", reasons=[AuditReason("c", "password=abc")])

    assert "abcdefghi" not in row["user_agent"]
    assert "abc" not in row["reasons"]


def test_reasons_are_json_without_empty_fields() -> None:
    row = _row(reasons=(AuditReason("denied", "why"), AuditReason("other")))

    assert json.loads(row["reasons"]) == [{"code": "denied", "message": "why"}, {"code": "other"}]
