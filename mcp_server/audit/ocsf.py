"""Rows of the audit log as OCSF 1.3.0 events (Open Cybersecurity Schema Framework, schema.ocsf.io).

A sign-in is an event of the class Authentication (3002), and everything else of API Activity (6003).
Columns without an OCSF attribute are in `unmapped`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_server import __version__

__all__ = ["SIGN_IN", "ocsf_event"]

SIGN_IN = "sign_in"
"""The method in the rows of sign-ins."""

_VERSION = "1.3.0"
_API_ACTIVITY, _AUTHENTICATION = 6003, 3002
_LOGON = 1
_READ, _UPDATE = 2, 3
_SUCCESS, _FAILURE, _OTHER_STATUS = 1, 2, 99
_INFORMATIONAL, _LOW, _MEDIUM = 1, 2, 3
_STATUS = {_SUCCESS: "Success", _FAILURE: "Failure", _OTHER_STATUS: "Other"}
_NOT_ALLOWED = frozenset({"deny", "limited", "approval_required"})


def ocsf_event(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event of a row that `mcp_server.audit.search.stream` yields."""
    sign_in = row["method"] == SIGN_IN
    class_uid = _AUTHENTICATION if sign_in else _API_ACTIVITY
    activity = _LOGON if sign_in else _UPDATE if _is_change(row) else _READ
    status = _status(row)
    user = _given(
        uid=row["user_id"],
        name=row["user_id"] or "unknown",
        org=_given(uid=row["tenant"], name=row["tenant"]),
    )
    event: dict[str, Any] = {
        "activity_id": activity,
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "type_uid": class_uid * 100 + activity,
        "time": int(row["time"].timestamp() * 1000),
        "severity_id": _severity(row, status),
        "status_id": status,
        "status": _STATUS[status],
        "status_code": row["outcome"] or row["phase"],
        "metadata": {
            "version": _VERSION,
            "uid": str(row["event_id"]),
            "correlation_uid": row["request_id"],
            "log_name": "audit.events",
            "product": {
                "name": "Enterprise MCP",
                "vendor_name": "enterprise-mcp",
                "version": __version__,
            },
        },
        "src_endpoint": (
            {"name": "unknown"} if row["client_ip"] is None else {"ip": str(row["client_ip"])}
        ),
    }
    if row["reasons"]:
        event["status_detail"] = "; ".join(
            reason.get("message") or reason["code"] for reason in row["reasons"]
        )
    if row["duration_ms"] is not None:
        event["duration"] = round(row["duration_ms"])
    if row["user_agent"]:
        event["http_request"] = {"user_agent": row["user_agent"]}
    if sign_in:
        event["user"] = user
        event["service"] = {"name": "Enterprise MCP", "uid": row["node"]}
    else:
        event["actor"] = {"user": user}
        event["api"] = {
            "operation": row["tool"] or row["method"],
            "request": {"uid": row["request_id"]},
            "service": {"name": "Enterprise MCP", "uid": row["node"]},
        }
        event["dst_endpoint"] = {"hostname": row["node"]}
        if row["effect"] is not None:
            event["action_id"] = 2 if row["effect"] in _NOT_ALLOWED else 1
            event["metadata"]["profiles"] = ["security_control"]
    event["unmapped"] = {
        name: row[name]
        for name in (
            *("phase", "transport", "method", "tool", "arguments", "effect", "reasons"),
            *("policy_revision", "outcome"),
        )
        if row[name] is not None
    }
    return event


def _is_change(row: Mapping[str, Any]) -> bool:
    return row["phase"] == "intent" or row["intent_id"] is not None


def _status(row: Mapping[str, Any]) -> int:
    if row["outcome"] == "ok":
        return _SUCCESS
    return _OTHER_STATUS if row["outcome"] is None else _FAILURE


def _severity(row: Mapping[str, Any], status: int) -> int:
    if status != _FAILURE:
        return _INFORMATIONAL
    return _MEDIUM if row["effect"] in _NOT_ALLOWED else _LOW


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
